"""The published experiments: one YAML file per row, named as its checkpoint path.

The catalogue finds them and knows their published figures. Imports yaml and `errors` alone.
"""
