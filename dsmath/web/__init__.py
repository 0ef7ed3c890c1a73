"""From a crawl to a mathematical corpus: reading, text, duplicates, classifier, domains; nothing of the model side."""
