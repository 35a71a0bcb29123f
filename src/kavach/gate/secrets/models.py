"""Keys of services that run models: who has one spends money and reads what was asked.

May be used by: kavach.gate.secrets.
"""

from __future__ import annotations

from kavach.gate.secrets.shape import keyed, token
from kavach.model.verdict import Severity


def _is_complete(value: bytes) -> bool:
    """Anthropic's keys end so: an AA of padding."""
    return value.endswith(b"AA")


MODEL_RULES = (
    token(
        "openai-key",
        "openai",
        Severity.CRITICAL,
        "An OpenAI key.",
        r"sk-(?:[a-zA-Z]{1,12}-)?[A-Za-z0-9_-]{16,120}T3BlbkFJ[A-Za-z0-9_-]{16,120}",
        (b"t3blbkfj",),
        bits=3.5,
        may_stand_in=True,
    ),
    token(
        "openai-project-key",
        "openai",
        Severity.CRITICAL,
        "An OpenAI key.",
        r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{80,250}",
        (b"sk-proj-", b"sk-svcacct-", b"sk-admin-"),
        bits=4.0,
        may_stand_in=True,
    ),
    token(
        "anthropic-key",
        "anthropic",
        Severity.CRITICAL,
        "An Anthropic key.",
        r"sk-ant-(?:api|admin|oat|ort|sid)[0-9]{2}-[A-Za-z0-9_-]{80,120}",
        (b"sk-ant-",),
        bits=3.5,
        test=_is_complete,
        may_stand_in=True,
    ),
    token(
        "huggingface-token",
        "huggingface",
        Severity.HIGH,
        "A Hugging Face token.",
        r"(?:hf_[A-Za-z0-9]{34,40}|api_org_[A-Za-z0-9]{34})",
        (b"hf_", b"api_org_"),
        bits=3.2,
    ),
    token(
        "groq-key",
        "groq",
        Severity.HIGH,
        "A Groq key.",
        r"gsk_[A-Za-z0-9]{48,56}",
        (b"gsk_",),
        bits=3.5,
        may_stand_in=True,
    ),
    token(
        "replicate-token", "replicate", Severity.HIGH, "A Replicate token.", r"r8_[A-Za-z0-9]{37}", (b"r8_",), bits=3.5
    ),
    token(
        "perplexity-key",
        "perplexity",
        Severity.HIGH,
        "A Perplexity key.",
        r"pplx-[A-Za-z0-9]{48}",
        (b"pplx-",),
        bits=3.5,
    ),
    token("xai-key", "xai", Severity.HIGH, "An xAI key.", r"xai-[A-Za-z0-9]{80}", (b"xai-",), bits=3.5),
    token(
        "openrouter-key", "openrouter", Severity.HIGH, "An OpenRouter key.", r"sk-or-v1-[0-9a-f]{64}", (b"sk-or-v1-",)
    ),
    token(
        "langchain-key",
        "langchain",
        Severity.HIGH,
        "A LangSmith key.",
        r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}",
        (b"lsv2_",),
    ),
    token("nvidia-key", "nvidia", Severity.HIGH, "An NVIDIA key.", r"nvapi-[\w-]{60,70}", (b"nvapi-",), bits=3.5),
    token(
        "pinecone-key",
        "pinecone",
        Severity.HIGH,
        "A Pinecone key.",
        r"pcsk_[A-Za-z0-9]{5,6}_[A-Za-z0-9]{60,64}",
        (b"pcsk_",),
        bits=3.5,
    ),
    token("cerebras-key", "cerebras", Severity.HIGH, "A Cerebras key.", r"csk-[a-z0-9]{48}", (b"csk-",), bits=3.5),
    token(
        "deepseek-key",
        "deepseek",
        Severity.HIGH,
        "A key of DeepSeek or an OpenAI-like service.",
        r"sk-[a-f0-9]{32}",
        (b"sk-",),
        bits=3.0,
    ),
    token(
        "openai-legacy-key",
        "openai",
        Severity.HIGH,
        "A key of an OpenAI-like service.",
        r"sk-[A-Za-z0-9]{48}",
        (b"sk-",),
        bits=4.0,
    ),
    token("wandb-key", "wandb", Severity.HIGH, "A Weights & Biases key.", r"wandb_v1_[\w-]{40,120}", (b"wandb_v1_",)),
    token(
        "tavily-key",
        "tavily",
        Severity.MEDIUM,
        "A Tavily key.",
        r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{32}",
        (b"tvly-",),
        bits=3.5,
    ),
    keyed(
        "cohere-key", "cohere", Severity.HIGH, "A Cohere key.", ("cohere", "co_api_key"), "[A-Za-z0-9]{40}", bits=3.5
    ),
    keyed("mistral-key", "mistral", Severity.HIGH, "A Mistral key.", ("mistral",), "[A-Za-z0-9]{32}", bits=3.3),
    keyed(
        "privateai-key",
        "privateai",
        Severity.HIGH,
        "A Private AI key.",
        ("privateai", "private_ai", "private-ai", "privateAI", "PrivateAI"),
        "[a-z0-9]{32}",
        bits=3.0,
    ),
    keyed(
        "elevenlabs-key",
        "elevenlabs",
        Severity.HIGH,
        "An ElevenLabs key.",
        ("elevenlabs", "eleven_labs", "xi-api"),
        "(?:sk_)?[a-f0-9]{32,48}",
        bits=3.0,
    ),
    keyed(
        "stability-key",
        "stability",
        Severity.HIGH,
        "A Stability AI key.",
        ("stability",),
        "sk-[A-Za-z0-9]{48}",
        bits=3.5,
    ),
)
