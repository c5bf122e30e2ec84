"""Models of the transformers library, config-initialised: nothing is downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .family import Family, Inputs, batch_size, integers, normal

VOCAB, LENGTH, LABELS = 96, 24, 2

TEXT = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = {**TEXT, "intermediate_size": 256, "max_position_embeddings": 64, "pad_token_id": 0}
LLAMA = {**TEXT, "intermediate_size": 192, "num_key_value_heads": 4, "max_position_embeddings": 64}
GQA = {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {"image_size": 32, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 256, "patch_size": 8, "num_labels": 4}  # fmt: skip


def _built(name: str, config: dict[str, Any]) -> Callable[[], nn.Module]:
    """Return what builds a model class of transformers from a config; `name` is 'Config Class'."""

    def build() -> nn.Module:
        import transformers

        config_name, class_name = name.split()
        model: nn.Module = getattr(transformers, class_name)(getattr(transformers, config_name)(**config))
        return model

    return build


def _words(seed: int) -> torch.Tensor:
    # From 3: the first ones are the marks of begin, end and padding.
    return 3 + integers(VOCAB - 3, (batch_size(seed), LENGTH), seed)


def causal(seed: int) -> Inputs:
    """Return the arguments of a language model in training."""
    ids = _words(seed)
    return (), {"input_ids": ids, "labels": ids, "use_cache": False}


def _masked(seed: int) -> Inputs:
    ids = _words(seed)
    mask = torch.ones_like(ids)
    mask[0, LENGTH // 2 :] = 0
    return (), {"input_ids": ids, "attention_mask": mask, "labels": integers(LABELS, (len(ids),), seed)}


def _translation(seed: int) -> Inputs:
    return (), {"input_ids": _words(seed), "labels": _words(seed + 3), "use_cache": False}


def _speech(seed: int) -> Inputs:
    features = normal((batch_size(seed), 16, 40), seed)
    return (), {"input_features": features, "labels": _words(seed), "use_cache": False}


def _pixels(seed: int) -> Inputs:
    pixels = normal((batch_size(seed), 3, 32, 32), seed)
    return (), {"pixel_values": pixels, "labels": integers(4, (len(pixels),), seed)}


def llama(key_value_heads: int) -> Callable[[], nn.Module]:
    """Return what builds a Llama of 4 layers of 128 with 8 heads, whose vocabulary weighs little."""
    config = {"vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
              "num_attention_heads": 8, "num_key_value_heads": key_value_heads}  # fmt: skip
    return _built("LlamaConfig LlamaForCausalLM", config)


FFN, HEADS, CHANNELS, NOTHING = (frozenset(knobs) for knobs in ({"ffn"}, {"heads"}, {"channels"}, set[str]()))
BOTH = FFN | HEADS

_TABLE: tuple[tuple[str, str, dict[str, Any], Callable[[int], Inputs], frozenset[str]], ...] = (
    ("GPT-2", "GPT2Config GPT2LMHeadModel",
     {**IDS, "vocab_size": VOCAB, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}, causal, BOTH),
    ("BERT", "BertConfig BertForSequenceClassification", BERT, _masked, BOTH),
    ("DistilBERT", "DistilBertConfig DistilBertForSequenceClassification",
     {"vocab_size": VOCAB, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256}, _masked, BOTH),
    ("RoBERTa", "RobertaConfig RobertaForSequenceClassification", BERT, _masked, BOTH),
    ("ELECTRA", "ElectraConfig ElectraForSequenceClassification",
     {**BERT, "embedding_size": 32}, _masked, BOTH),
    ("ALBERT, shared layers", "AlbertConfig AlbertForSequenceClassification",
     {**BERT, "embedding_size": 32}, _masked, NOTHING),
    ("Llama", "LlamaConfig LlamaForCausalLM", LLAMA, causal, BOTH),
    ("Llama, GQA", "LlamaConfig LlamaForCausalLM", GQA, causal, BOTH),
    ("Mistral", "MistralConfig MistralForCausalLM", GQA, causal, BOTH),
    ("Qwen2", "Qwen2Config Qwen2ForCausalLM", GQA, causal, BOTH),
    ("Qwen3", "Qwen3Config Qwen3ForCausalLM", GQA, causal, BOTH),
    ("Phi-3, fused", "Phi3Config Phi3ForCausalLM", {**LLAMA, **IDS}, causal, BOTH),
    ("GPT-NeoX, interleaved", "GPTNeoXConfig GPTNeoXForCausalLM",
     {**TEXT, "intermediate_size": 256, "max_position_embeddings": 64}, causal, BOTH),
    ("BLOOM", "BloomConfig BloomForCausalLM",
     {"vocab_size": VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4}, causal, BOTH),
    ("OPT", "OPTConfig OPTForCausalLM",
     {**TEXT, **IDS, "ffn_dim": 256, "max_position_embeddings": 64, "word_embed_proj_dim": 64}, causal, BOTH),
    ("Gemma", "GemmaConfig GemmaForCausalLM", {**GQA, **IDS}, causal, BOTH),
    ("Gemma 2", "Gemma2Config Gemma2ForCausalLM", {**GQA, **IDS}, causal, BOTH),
    # Its linear layers are a class with a forward of its own.
    ("Falcon", "FalconConfig FalconForCausalLM", {**TEXT, **IDS}, causal, NOTHING),
    ("Mixtral, MoE", "MixtralConfig MixtralForCausalLM",
     {**GQA, "num_local_experts": 4, "num_experts_per_tok": 2}, causal, HEADS),
    ("Mamba", "MambaConfig MambaForCausalLM",
     {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}, causal, NOTHING),
    ("T5", "T5Config T5ForConditionalGeneration",
     {**IDS, "vocab_size": VOCAB, "d_model": 64, "d_ff": 256, "num_layers": 2, "num_heads": 4, "d_kv": 16,
      "decoder_start_token_id": 0}, _translation, BOTH),
    ("BART", "BartConfig BartForConditionalGeneration",
     {**IDS, "vocab_size": VOCAB, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
      "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 256,
      "decoder_ffn_dim": 256, "max_position_embeddings": 64, "decoder_start_token_id": 2,
      "forced_eos_token_id": 2}, _translation, BOTH),
    ("Whisper", "WhisperConfig WhisperForConditionalGeneration",
     {**IDS, "vocab_size": VOCAB, "num_mel_bins": 16, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
      "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 256,
      "decoder_ffn_dim": 256, "max_source_positions": 20, "max_target_positions": 64,
      "decoder_start_token_id": 2, "suppress_tokens": [], "begin_suppress_tokens": [1]}, _speech, BOTH),
    ("ViT", "ViTConfig ViTForImageClassification", IMAGE, _pixels, BOTH),
    ("DeiT", "DeiTConfig DeiTForImageClassification", IMAGE, _pixels, BOTH),
    ("Swin", "SwinConfig SwinForImageClassification",
     {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4],
      "window_size": 4, "num_labels": 4}, _pixels, BOTH),
    ("ConvNeXt", "ConvNextConfig ConvNextForImageClassification",
     {"image_size": 32, "hidden_sizes": [32, 64], "depths": [2, 2], "num_stages": 2, "patch_size": 2,
      "num_labels": 4}, _pixels, FFN),
    ("ResNet (HF)", "ResNetConfig ResNetForImageClassification",
     {"embedding_size": 16, "hidden_sizes": [64, 128], "depths": [2, 2], "num_labels": 4}, _pixels, CHANNELS),
    ("MobileNetV2", "MobileNetV2Config MobileNetV2ForImageClassification",
     {"image_size": 32, "depth_multiplier": 0.35, "num_labels": 4}, _pixels, CHANNELS),
    ("RegNet", "RegNetConfig RegNetForImageClassification",
     {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2], "groups_width": 16,
      "num_labels": 4}, _pixels, CHANNELS),
)  # fmt: skip

FAMILIES: tuple[Family, ...] = ()
if importlib.util.find_spec("transformers") is not None:
    FAMILIES = tuple(
        # Grouped products of matrices are for the shorter floats only.
        Family(name, _built(classes, config), inputs, knobs, double="MoE" not in name)
        for name, classes, config, inputs, knobs in _TABLE
    )
