"""The pictures of the page: matplotlib's figures as text, one file for each kind of panel.

Imports `studies.analysis` and the markup of the page.
"""
