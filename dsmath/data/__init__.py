"""Training data: problems and solutions, the tokenizer, documents, packing into batches."""
