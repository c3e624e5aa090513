"""What a person sees: pages, texts and lines, made from signs. Knows nothing of HTTP."""
