"""Ways to write numbers and times, and what stays of them: patterns, and what they are replaced by, in this order.

`$` is the end of the text, and digits are those of ASCII.
"""

SPELLINGS = (
    (r"^([+-]?)0+(\d)", r"\1\2"),
    (r"^([+-]?\d+)\.0*$", r"\1"),
    (r"^([+-]?\d*\.\d*?[1-9])0+$", r"\1"),
    (r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?(\.\d*?)?0*(Z|[+-]\d\d:?\d\d)?$", r"\1 \2\3\4"),
    (r"(:\d\d)\.?$", r"\1"),
    (r"^(\d{4}-\d\d-\d\d \d\d:\d\d)$", r"\1:00"),
    (r"^(\d{4}-\d\d-\d\d) 00:00:00$", r"\1"),
)
