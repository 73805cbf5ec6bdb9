"""What process 0 writes of a run, from its first moment to its last."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from softmax_gradient_tampering.files.whole import remove
from softmax_gradient_tampering.training.checkpoint.folder import CheckpointFolder
from softmax_gradient_tampering.training.checkpoint.state import Circumstances, RunState
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED
from softmax_gradient_tampering.training.measure.evaluation import Evaluation
from softmax_gradient_tampering.training.measure.filter_norms import FilterHistory, filter_norms
from softmax_gradient_tampering.training.measure.predictions import write_predictions
from softmax_gradient_tampering.training.records import run_files
from softmax_gradient_tampering.training.records.sinks import Sink, open_sinks
from softmax_gradient_tampering.training.resume.run_folder import RunFolder
from softmax_gradient_tampering.training.step.backends import describe_backends
from softmax_gradient_tampering.training.step.position import Position


class Recorder:
    """The run folder, as process 0 writes it.

    Args:
        run_folder: the run folder, whose lock this process has.
        circumstances: of the run.
        device_name: what computes, for a person.
        state: of the run, where it starts or goes on.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        circumstances: Circumstances,
        device_name: str,
        state: RunState,
    ) -> None:
        config = circumstances.config
        folder = self._folder = run_folder.path
        self._run_folder = run_folder
        self._args = to_mapping(config, leave_out=NOT_RECORDED)
        self._checkpoints = CheckpointFolder(folder, config.checkpoint_hist, run_folder.damaged)
        self._checkpoints.check()
        self._checkpoints.clear_up()
        if run_folder.origin is not None and config.start_epoch is None:
            self._checkpoints.complete_epoch(run_folder.origin, state.position.epoch, state.best)
        self._filter_history: FilterHistory | None = None
        self._sinks: list[Sink] = []
        remove(folder / "result.json")
        if config.filter_norms:
            self._filter_history = FilterHistory(folder, state.position.epoch)
        self._sinks = open_sinks(config.sinks, folder, self._args)
        run_files.write_args(folder, self._args)
        run_files.write_environment(
            folder,
            device_name,
            torch.get_num_threads(),
            circumstances.loss_kernel,
            describe_backends(torch.device(circumstances.device)),
        )
        self._summary = run_files.SummaryFile(folder)
        self._summary.write(state.rows)

    def end_epoch(self, state: RunState, checkpoint: dict[str, Any], model: nn.Module) -> None:
        """Write the row and the checkpoints of an epoch; evaluated, the checkpoint has a metric."""
        self._run_folder.check()
        epoch = state.position.epoch
        if self._filter_history is not None:
            self._filter_history.add(epoch, filter_norms(model))
        self._summary.write(state.rows)
        self._checkpoints.save_epoch(checkpoint, epoch, state.best)
        for sink in self._sinks if "metric" in checkpoint else ():
            sink.write(state.rows[-1])

    def save_recovery(self, checkpoint: dict[str, Any], position: Position) -> None:
        """Write a checkpoint between two optimizer steps."""
        self._run_folder.check()
        self._checkpoints.save_recovery(checkpoint, position)

    def finish(
        self,
        state: RunState,
        final: Evaluation,
        predictions: tuple[NDArray[Any], NDArray[Any]] | None,
    ) -> None:
        """Write predictions.npz, then result.json, which means that the run is finished."""
        self._run_folder.check()
        if predictions is not None:
            write_predictions(self._folder, *predictions)
        best_epoch, best_metric = state.best[0] if state.best else (None, None)
        result = {
            "status": "finished",
            "epochs": state.position.epoch,
            "steps": state.position.step,
            "best_epoch": best_epoch,
            "best_metric": best_metric,
            "final": state.rows[-1] if state.rows else None,
            "measurements": final.measurements,
            "classes": None if final.classes is None else final.classes.recorded(),
            "config_hash": run_files.run_hash(self._args),
            "summary_hash": run_files.rows_hash(state.rows),
            "seconds": round(state.seconds, 3),
            "resumes": state.resumes,
        }
        run_files.write_result(self._folder, result)
        self._checkpoints.remove_spares()

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()
