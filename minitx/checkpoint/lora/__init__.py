"""LoRA adapters (arXiv:2106.09685) in PEFT's files, merged into the weights while they are read.

A folder with adapter_config.json is an adapter: beside its base model, or alone and then with
`base_model_name_or_path` as its base. The loaded model is a plain one, and `save` writes it as such. A
setting that changes the weights in another way is refused by its name.
"""
