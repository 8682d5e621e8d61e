"""Architectures with formulas: those of random models, and of plans that need no torch.

Every causal language model of transformers can be used (docs/architectures.md); what a loaded model
needs is read off the model itself (``models.structure``), what a plan needs is measured
(``measured``). A record here saves a plan that measurement, and gives random models the defaults
that make their identity complete. The tests compare every record with the classes of transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Bias = bool | str
"""Whether linear layers have a bias; a string names the configuration field that decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One family of causal transformers, as transformers implements it.

    Attributes:
        name: ``architecture`` in a spec, ``model_type`` in a ``config.json``.
        defaults: every configuration field of a model with random weights. None: derived from the
            tokenizer or from other fields (``random_init``).
        aliases: the family's own name of a field -> the common name.
        own_names: common name -> the only name under which transformers reads that field.
        in_gguf: transformers reads the family from GGUF files.
        blocks: attribute of the backbone that holds the list of blocks.
        final_norm: attribute of the backbone that holds the norm after the last block.
        norm: LayerNorm has a weight and a bias, RMSNorm has a weight and computes in float32.
        learned_positions: positions have an embedding of their own; otherwise they are rotary.
        fused_qkv: queries, keys and values come from one linear layer.
        qkv_bias: bias of the layers that make queries, keys and values.
        attention_output_bias: bias of the layer that attention ends with.
        gated_mlp: feed-forward is down(act(gate x) · up x), not down(act(up x)).
        mlp_bias: bias of the feed-forward layers.
        transposed_linear: linear layers store their weight as (in, out), like embeddings.
        saved_hidden: states of the hidden width that autograd keeps of one block, in the
            precision of the model, apart from attention's.
        saved_inner: states of the feed-forward width that autograd keeps of one block.
        stock_class: class of transformers that reads an exported scorer.
        stock_backbone: attribute of ``stock_class`` that holds the backbone.
    """

    name: str
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    own_names: Mapping[str, str] = field(default_factory=dict)
    in_gguf: bool
    blocks: str
    final_norm: str
    norm: Literal["layer_norm", "rms_norm"]
    learned_positions: bool = False
    fused_qkv: bool = False
    qkv_bias: Bias
    attention_output_bias: Bias
    gated_mlp: bool
    mlp_bias: Bias
    transposed_linear: bool = False
    saved_hidden: int
    saved_inner: int
    stock_class: str
    stock_backbone: str

    @property
    def norm_vectors(self) -> int:
        """Vectors of the hidden width in one norm."""
        return 2 if self.norm == "layer_norm" else 1

    @property
    def final_norm_bias(self) -> str | None:
        """Name, in the backbone, of the final norm's bias; None: that norm has none."""
        return f"{self.final_norm}.bias" if self.norm == "layer_norm" else None

    def common_names(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Configuration fields, with the family's own names replaced by the common ones."""
        return {self.aliases.get(name, name): value for name, value in fields.items()}

    def has_bias(self, bias: Bias, config: Mapping[str, Any]) -> bool:
        """Whether layers have the bias, by the record or by the field of ``config`` it names."""
        if isinstance(bias, bool):
            return bias
        return bool(config.get(bias, self.defaults[bias]))


_COMMON: dict[str, Any] = {
    "vocab_size": None,  # of the tokenizer
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": None,  # 4 · hidden_size
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
}
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}

_GPT2 = Architecture(
    name="gpt2",
    defaults={
        **_COMMON,
        "max_position_embeddings": 1024,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_by_inverse_layer_idx": False,
    },
    aliases={
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
    },
    own_names={"intermediate_size": "n_inner"},
    in_gguf=True,
    blocks="h",
    final_norm="ln_f",
    norm="layer_norm",
    learned_positions=True,
    fused_qkv=True,
    qkv_bias=True,
    attention_output_bias=True,
    gated_mlp=False,
    mlp_bias=True,
    transposed_linear=True,
    saved_hidden=4,  # what each of the two norms reads and gives
    saved_inner=5,  # gelu_new is written out in products
    stock_class="GPT2ForSequenceClassification",
    stock_backbone="transformer",
)
_GPT_NEOX = Architecture(
    name="gpt_neox",
    defaults={
        **_COMMON,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "attention_bias": True,
        "rope_parameters": {**_ROTARY, "partial_rotary_factor": 0.25},
    },
    in_gguf=False,
    blocks="layers",
    final_norm="final_layer_norm",
    norm="layer_norm",
    fused_qkv=True,
    qkv_bias="attention_bias",
    attention_output_bias="attention_bias",
    gated_mlp=False,
    mlp_bias=True,
    saved_hidden=3,  # both norms read the same states
    saved_inner=2,
    stock_class="GPTNeoXForSequenceClassification",
    stock_backbone="gpt_neox",
)
_LLAMA = Architecture(
    name="llama",
    defaults={
        **_COMMON,
        "num_key_value_heads": None,  # num_attention_heads
        "head_dim": None,  # hidden_size / num_attention_heads
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": _ROTARY,
    },
    in_gguf=True,
    blocks="layers",
    final_norm="norm",
    norm="rms_norm",
    qkv_bias="attention_bias",
    attention_output_bias="attention_bias",
    gated_mlp=True,
    mlp_bias="mlp_bias",
    saved_hidden=6,  # three for each of the two norms
    saved_inner=4,
    stock_class="LlamaForSequenceClassification",
    stock_backbone="model",
)
_QWEN2 = Architecture(
    name="qwen2",
    defaults={
        **_COMMON,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": _ROTARY,
    },
    in_gguf=True,
    blocks="layers",
    final_norm="norm",
    norm="rms_norm",
    qkv_bias=True,
    attention_output_bias=False,
    gated_mlp=True,
    mlp_bias=False,
    saved_hidden=6,
    saved_inner=4,
    stock_class="Qwen2ForSequenceClassification",
    stock_backbone="model",
)

ARCHITECTURES: Mapping[str, Architecture] = {
    record.name: record for record in (_GPT2, _GPT_NEOX, _LLAMA, _QWEN2)
}
