"""Write the shipped decoder as `tiny-decoder-q8_0.gguf`. Needs `pip install gguf`."""

import json

import gguf
from gguf import GGMLQuantizationType
from safetensors.torch import load_file

from minitx.shipped import shipped_folder

folder = shipped_folder("minitx/tiny-decoder")
config = json.loads((folder / "config.json").read_text())
vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
heads, layers = config["num_attention_heads"], config["num_hidden_layers"]

writer = gguf.GGUFWriter("tiny-decoder-q8_0.gguf", "llama")
writer.add_name("tiny-decoder")
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_block_count(layers)
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(heads)
writer.add_head_count_kv(config["num_key_value_heads"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_rope_dimension_count(config["hidden_size"] // heads)

# The tokenizer: a score is the rank of the merge that makes the token.
tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
ranks = {"".join(pair): rank for rank, pair in enumerate(vocabulary["merges"])}
unknown, control, normal, byte = 2, 3, 1, 6
kinds = [byte if token.startswith("<0x") else normal for token in tokens[5:]]
writer.add_tokenizer_model("llama")
writer.add_token_list(tokens)
writer.add_token_scores([-float(ranks.get(token, len(ranks))) for token in tokens])
writer.add_token_types([unknown, *4 * [control], *kinds])
writer.add_bos_token_id(config["bos_token_id"])
writer.add_eos_token_id(config["eos_token_id"])

names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
for name, tensor in load_file(folder / "model.safetensors").items():
    if "q_proj" in name or "k_proj" in name:  # the halves of a head become neighbours
        count = heads if "q_proj" in name else config["num_key_value_heads"]
        halves = tensor.reshape(count, 2, -1, tensor.shape[1])
        tensor = halves.transpose(1, 2).reshape(tensor.shape)
    kind = GGMLQuantizationType.Q8_0 if tensor.dim() == 2 else GGMLQuantizationType.F32
    values = gguf.quants.quantize(tensor.float().numpy(), kind)
    writer.add_tensor(
        names.get_name(name, try_suffixes=(".weight",)), values, raw_dtype=kind
    )

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
