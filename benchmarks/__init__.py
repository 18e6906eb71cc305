"""What observability costs, beside bare Tornado and the libraries put together by hand.

`python -m benchmarks --help`; README.md says what each command measures.
"""
