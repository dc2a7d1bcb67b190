"""What Tidings' speed and memory are, beside peers and limits of the machine, in the same run.

Tests of other packages import nothing from here; the servers are those of the tests.
"""
