"""The figures of the page as plain values: where which line, mark and word stands, one file a kind.

Imports `studies.analysis` and the words of the report. Templates make SVG of what is made here.
"""
