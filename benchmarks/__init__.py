"""What observability costs, beside bare Tornado and the libraries put together by hand.

`python -m benchmarks --help`; README.md tells what each command measures.
"""
