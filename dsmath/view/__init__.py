"""The page over a folder of runs; `experiments/view.py` serves it.

`files` reads what lies below the folder and nothing else, `runs` finds the runs and says how they stand, `lineage`
draws who was made from whom, `curves` reads and thins metrics, `comparison` tells configs apart, `samples` reads pages
of samples, `app` speaks HTTP.
"""
