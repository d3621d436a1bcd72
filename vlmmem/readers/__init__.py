"""Models out of files: a config, a folder, the header of a safetensors or GGUF file, a name of the hub."""
