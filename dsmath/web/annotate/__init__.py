"""The page on which people mark the URL paths of mathematics; `experiments/annotate.py` serves it.

`offers` reads what a round of mining offers, `tree` counts one domain's paths, `marks` keeps who marked what,
`annotation` puts them together, `app` speaks HTTP.
"""
