"""Names of learned metrics and the files of the usual ones; imports nothing, so that flags can be checked at once."""

from __future__ import annotations

INSTEAD = "--metric technical, which needs none"
LONG_SIDE = 1024  # KonIQ-10k, on which most of these were trained, is 1024 x 768
ALIASES = {"topiq": "topiq_nr", "clipiqa_plus": "clipiqa+"}
COMBINED = ("musiq", "clipiqa")  # what `combined` stands for, as people know it from other pipelines

PUBLISHED = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
RN50 = (
    "https://openaipublic.azureedge.net/clip/models/"
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt"
)
# Files of the usual metrics, so that their presence and their fingerprint are known before torch is imported.
KNOWN_FILES = {
    "musiq": (PUBLISHED + "musiq_koniq_ckpt-e95806b9.pth",),
    "musiq-ava": (PUBLISHED + "musiq_ava_ckpt-e8d3f067.pth",),
    "musiq-spaq": (PUBLISHED + "musiq_spaq_ckpt-358bb6af.pth",),
    "musiq-paq2piq": (PUBLISHED + "musiq_paq2piq_ckpt-364c0c84.pth",),
    "clipiqa": (RN50,),
    "clipiqa+": (RN50, PUBLISHED + "CLIP-IQA+_learned_prompts-603f3273.pth"),
    "topiq_nr": (PUBLISHED + "cfanet_nr_koniq_res50-9a73138b.pth",),
}
