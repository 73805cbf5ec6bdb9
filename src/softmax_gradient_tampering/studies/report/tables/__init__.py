"""The tables of the page as plain values: what stands in which cell. Templates make HTML of them.

Imports `studies.analysis` and the words of the report; nothing here knows HTML.
"""
