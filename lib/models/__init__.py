"""Models: found in one place, loaded late and once, fed in batches. Nothing here is imported before a model is needed.

place      where weights are looked for, and the sentence that says which file is missing
offline    building a model of another package from local files only: no download, no retries
device     the processor a model runs on, batches that fit it, half the batch when memory runs out
feed       pictures are decoded in workers while the model runs, with a bounded queue between
iqa        learned quality metrics of pyiqa, by name; musiq and clipiqa hold the two faster ways to run them
convolution  the convolutions of clipiqa with less arithmetic, on a CPU
clip       embeddings and prompts by open_clip
detector   object detection by torchvision
"""
