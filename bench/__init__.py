"""Benchmarks: the numbers Fleet promises, measured on the running product.

`make bench` runs all of them, `python -m bench messages kill` some. Each prints Markdown rows and writes
`results/<name>.json` with value, unit, target and baseline. Baselines are measured in the same run on the same machine.
"""
