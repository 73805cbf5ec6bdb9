"""The published experiments: one YAML file per row, named as its checkpoint path."""
