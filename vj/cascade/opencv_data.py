"""The stock cascades out of an opencv-python 4 wheel: taken out of the archive, not installed.

opencv-python 5 has neither the class nor the files; the wheel of version 4 has the files, whatever system it is for.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from vj._files import write_bytes
from vj.cascade.storage_node import MAX_BYTES
from vj.errors import InputError

HASHES = {
    "haarcascade_eye.xml": "71cc64fc305a355dc60067880f6fbbd43dd155bd63ee3844661a1bda34b2fd8c",
    "haarcascade_eye_tree_eyeglasses.xml": "e32f9c67935c33e9d1331eb14fa58554ff17835c03742663bcb97a892e936a57",
    "haarcascade_frontalcatface.xml": "ac2bac934ef24284ef8a2b2e9d8e57eef84ac1d6943b4d11e5c9e8584dc069c8",
    "haarcascade_frontalcatface_extended.xml": "ffd0d1d28f07d0376c89db4c9845009c2855cc76c8cff763d5331dc9361da854",
    "haarcascade_frontalface_alt.xml": "6281df13459cc218ff047d02b2ae3859b12ff14a93ffe8952f7b33fad7b9697b",
    "haarcascade_frontalface_alt2.xml": "7b0c967d9abbdfbde025eb9c786947d151b6426040d07a8f9562ed8fd90724b4",
    "haarcascade_frontalface_alt_tree.xml": "0e5ee47ecc13269d54dd7a55f8b53752167c52587720877732388fb078a0480a",
    "haarcascade_frontalface_default.xml": "0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0",
    "haarcascade_fullbody.xml": "041745c71eef1b5c86aef224f17ce75b042d33314cc8f6757424f8bd8cd30aa1",
    "haarcascade_lefteye_2splits.xml": "74c323c78c81475fc9158facbfb866bb0cca06be41f571df47d4ac8d01f9ce4c",
    "haarcascade_license_plate_rus_16stages.xml": "4d1c44bf7a1bc4e204fa25b046ed0acffd7f713cc13fe2958b6977125c60ddea",
    "haarcascade_lowerbody.xml": "1e696e1c7c66c439ae229cfff8871f42037c357e9e1e090a2b59ebc1f8ff5cbb",
    "haarcascade_profileface.xml": "b39a4a3be45539db146a7fc1d3e761a292c196eb88421185e6a615b3055e612d",
    "haarcascade_righteye_2splits.xml": "4cf0d72bea7307e9af7eb99d4acbe15d7101a67c22fcdcfbeefd692ad37cf776",
    "haarcascade_russian_plate_number.xml": "814cb5954682af570e58361f9e5f8b5b513a4112776bb9ecacef9f0e4ca6c2d7",
    "haarcascade_smile.xml": "4ca1f304eabd0b5ae30180c81acb53e166a5867e5be17b316bd3f32cfdf87d8a",
    "haarcascade_upperbody.xml": "7328ab4fdb1592f53d98d7ea5b1b9d90e01af5d95f212af378c7eb579048bb5f",
}
"""SHA-256 of each cascade in the wheels of opencv-python 4.14."""


def unpack(wheel: Path, folder: Path) -> list[Path]:
    """Take the stock cascades out of a wheel.

    Parameters
    ----------
    wheel : Path
        Of opencv-python or opencv-python-headless 4.
    folder : Path
        Made if missing. Files are written whole or not at all, and only if all of them are as expected.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If the file is no wheel, or a cascade is missing or not the one that OpenCV published.
    OSError
        If the folder cannot be written to.
    """
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in HASHES.items():
                info = archive.getinfo(f"cv2/data/{name}")
                data = archive.read(info) if info.file_size <= MAX_BYTES else b""
                if hashlib.sha256(data).hexdigest() != expected:
                    raise InputError(f"{wheel}: expected OpenCV's own {name}, got a file of another SHA-256")
                found[name] = data
    except KeyError as error:
        raise InputError(f"{wheel}: expected a wheel of opencv-python 4 with cascades, got {error.args[0]}") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel}: expected a wheel, got {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in found.items():
        write_bytes(folder / name, data)
    return [folder / name for name in found]
