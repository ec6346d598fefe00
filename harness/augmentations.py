"""The names of all augmentation steps and corruptions, so that recipes and help texts can list them without torch.
`harness/data/augment/steps.py` has the steps themselves.
"""

UINT8_NAMES = (
    "crop",
    "resized-crop",
    "flip",
    "autoaugment-cifar",
    "autoaugment-svhn",
    "autoaugment-pil-cifar",
    "autoaugment-pil-svhn",
    "randaugment",
    "trivialaugment",
)
# In a recipe, each is followed by the data set's own policy: AutoAugment as torchvision, and as DeepVoltaire, has it.
POLICY_SHORTHANDS = ("autoaugment", "autoaugment-pil")
FLOAT_NAMES = ("erase", "erase-lee", "crop-paste")
MIX_NAMES = ("none", "mixup", "cutmix", "either")

# What robustness is measured under, each at five strengths; see harness/data/corrupt.py.
CORRUPTION_NAMES = ("noise", "blur", "contrast", "brightness", "pixelation", "jpeg", "occlusion")
CORRUPTION_STRENGTHS = 5
