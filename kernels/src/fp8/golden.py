"""Writes golden.txt: what PyTorch's casts to float8_e4m3fn make of numbers and of tiles.

`python golden.py > golden.txt`, with the packages of tests/reference/requirements.txt. A line of
numbers is pairs of an F32 and its code; a line of a row is its BF16 elements, the F32 scales of its
tiles and its codes. All in hexadecimal.
"""

import torch

TILE = 128
LARGEST = 448.0


def bits(values, whole):
    """Numbers as the hexadecimal digits of their bits."""
    digits = 2 * values.element_size()
    mask = (1 << 4 * digits) - 1
    return [f"{bits & mask:0{digits}x}" for bits in values.view(whole).tolist()]


def numbers(random):
    """All that E4M3 has, what lies half-way and just beside it, and numbers of all exponents."""
    codes = torch.arange(127, dtype=torch.uint8)
    exact = codes.view(torch.float8_e4m3fn).float()
    ties = (exact[1:] + exact[:-1]) / 2
    beside = [torch.nextafter(ties, torch.tensor(to)) for to in (0.0, torch.inf)]
    exponents = torch.rand(300, generator=random) * 24 - 15
    other = (2.0**exponents).clamp(max=LARGEST)
    tiny = torch.tensor([1e-45, 1e-38, 2.0**-11])
    positive = torch.cat([exact, ties, *beside, other, tiny])
    return torch.cat([positive, -positive[::3]])


def main():
    random = torch.Generator().manual_seed(20_507)
    x = numbers(random)
    pairs = zip(bits(x, torch.int32), bits(x.to(torch.float8_e4m3fn), torch.int8))
    pairs = [" ".join(pair) for pair in pairs]
    for first in range(0, len(pairs), 8):
        print("numbers", *pairs[first : first + 8])
    for width in (1, 128, 200, 300):
        row = torch.randn(width, generator=random) * 10 ** torch.randn(1, generator=random)
        tiles = row.bfloat16().split(TILE)
        scales = torch.stack([tile.float().abs().max() / LARGEST for tile in tiles])
        codes = [(t.float() / s).to(torch.float8_e4m3fn) for t, s in zip(tiles, scales)]
        elements = "".join(bits(torch.cat(tiles), torch.int16))
        scales = "".join(bits(scales, torch.int32))
        codes = "".join(bits(torch.cat([code.view(torch.int8) for code in codes]), torch.int8))
        print("row", elements, scales, codes)


if __name__ == "__main__":
    main()
