"""An endpoint over a checkpoint that speaks OpenAI's protocol; `experiments/serve.py` runs it.

`schema` reads what clients ask, `worker` owns the engine in a thread of its own, `service` makes requests of the engine
and answers of its samples, `texts` says what of a text is certain, `app` speaks HTTP.
"""
