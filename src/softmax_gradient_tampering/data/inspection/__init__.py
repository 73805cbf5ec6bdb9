"""Looking at image files before they are trained on: `sgt data check`, `--on-bad-image`.

Reads files and reports; it changes nothing. Imports `data.folder`.
"""
