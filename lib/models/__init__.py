"""Models: found in one place, loaded late and once, fed in batches. Nothing here is imported before a model is needed.

weights    where weights are looked for, the sentence that says which file is missing, and loading without downloads
device     the processor a model runs on, batches that fit it, half the batch when memory runs out
batches    pictures are decoded in workers while the model runs, with a bounded queue between
iqa        learned quality metrics of pyiqa, by name; fast_iqa runs two of them without waste
clip       embeddings and prompts by open_clip
detector   object detection by torchvision
vlm        questions about a picture to a vision model behind an HTTP interface
"""
