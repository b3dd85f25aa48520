import pytest
import torch

from memmeta_exp.data import EpisodeSampler, ImageSet


def numbered(classes: int = 20, per_class: int = 12) -> ImageSet:
    """One-pixel images whose value is 12 * class + item: an image tells where it came from."""
    images = torch.arange(classes * per_class, dtype=torch.uint8).reshape(classes, per_class, 1, 1, 1)
    return ImageSet(images, tuple(str(i) for i in range(classes)))


def sampler(stream: str = "train", seed: int = 0, ways: int = 5, shots: int = 2, queries: int = 3) -> EpisodeSampler:
    return EpisodeSampler(numbered(), stream, seed, ways, shots, queries)


def test_the_stream_is_pinned():
    """Reference values written down once: any change of the generator makes old runs unrepeatable."""
    batch = sampler().draw(1000, 2)
    assert batch.classes.tolist() == GOLDEN_CLASSES
    assert batch.items[1].tolist() == GOLDEN_ITEMS


GOLDEN_CLASSES = [[8, 6, 1, 17, 3], [4, 8, 2, 1, 10]]
GOLDEN_ITEMS = [[0, 2, 4, 3, 5], [6, 2, 9, 1, 3], [8, 7, 10, 1, 2], [8, 7, 3, 4, 6], [11, 9, 3, 0, 8]]


def test_the_key_of_a_candidate_is_splitmix64_in_plain_integers():
    """The same arithmetic with Python's unbounded integers, for classes and for the items of the last way."""
    word, gamma = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
        return x ^ (x >> 31)

    def smallest(key: int, among: int, count: int) -> list[int]:
        keys = [mix((key + (i + 1) * gamma) & word) for i in range(among)]
        signed = [k - (1 << 64) if k >> 63 else k for k in keys]
        return sorted(range(among), key=signed.__getitem__)[:count]

    drawn = sampler("val", seed=3)
    task = mix((drawn._root + 7 * gamma) & word)
    slots = [mix((task + (s + 1) * gamma) & word) for s in range(6)]
    batch = drawn.draw(7, 1)
    assert batch.classes[0].tolist() == smallest(slots[0], 20, 5)
    assert batch.items[0, 4].tolist() == smallest(slots[5], 12, 5)


def test_a_task_does_not_depend_on_how_the_stream_is_cut():
    whole, parts = sampler().draw(0, 8), [sampler().draw(0, 3), sampler().draw(3, 5)]
    assert torch.equal(whole.classes, torch.cat([p.classes for p in parts]))
    assert torch.equal(whole.items, torch.cat([p.items for p in parts]))
    assert torch.equal(whole[3:].query()[0], parts[1].query()[0])


def test_more_ways_shots_or_queries_keep_what_was_chosen():
    small, large = sampler().draw(0, 4), sampler(ways=9, shots=4, queries=8).draw(0, 4)
    assert torch.equal(small.classes, large.classes[:, :5])
    assert torch.equal(small.items, large.items[:, :5, :5])


def test_nothing_is_drawn_twice():
    batch = sampler(shots=5, queries=7).draw(0, 200)
    assert all(len(set(row)) == 5 for row in batch.classes.tolist())
    assert torch.equal(batch.items.sort(-1).values, torch.arange(12).expand(200, 5, 12))


def test_support_and_query_are_way_major_disjoint_and_labelled_by_way():
    batch = sampler().draw(5, 3)
    (support, labels), (query, query_labels) = batch.support(), batch.query()
    assert support.shape == (3, 10, 1, 1, 1)
    assert query.shape == (3, 15, 1, 1, 1)
    assert labels.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]] * 3
    assert query_labels[0].tolist() == [w for w in range(5) for _ in range(3)]
    for images, ways in ((support, labels), (query, query_labels)):
        assert torch.equal(images.flatten(1).long() // 12, batch.classes.gather(1, ways))
    for s, q in zip(support.flatten(1).tolist(), query.flatten(1).tolist(), strict=True):
        assert not set(s) & set(q)


def test_slices_hold_the_same_tasks():
    batch = sampler().draw(0, 8)
    assert len(batch[2:4]) == 2
    assert torch.equal(batch[2:4].support()[0], batch.support()[0][2:4])


def test_streams_and_seeds_are_unrelated():
    """Equal first classes happen by chance in 1 task of 20: 100 +- 9.7 in 2000 tasks."""
    draws = [sampler(s, seed).draw(0, 2000).classes[:, 0] for s in ("train", "test") for seed in (0, 1, 2)]
    draws.append(sampler().draw(1, 2000).classes[:, 0])  # k against k + 1
    for i, one in enumerate(draws):
        for other in draws[i + 1 :]:
            assert 60 < int((one == other).sum()) < 140


def test_choices_are_uniform():
    """Chi-square over pairs (class, item) in a fixed position: 239 degrees of freedom, 239 +- 22."""
    batch = sampler().draw(0, 24_000)
    for way, position in ((0, 0), (4, 4)):
        cells = batch.classes[:, way] * 12 + batch.items[:, way, position]
        counts = torch.bincount(cells, minlength=240).double()
        assert 239 - 88 < float(((counts - 100) ** 2 / 100).sum()) < 239 + 88


def test_ways_of_a_task_choose_their_items_independently():
    """The first item of way 0 and of way 1 agree in 1 task of 12: 500 +- 21 in 6000."""
    items = sampler().draw(0, 6000).items[..., 0]
    assert 415 < int((items[:, 0] == items[:, 1]).sum()) < 585


@pytest.mark.parametrize(("ways", "shots", "word"), [(21, 2, "ways=21"), (5, 10, "shots=10")])
def test_an_episode_that_does_not_fit_is_refused(ways: int, shots: int, word: str):
    with pytest.raises(ValueError, match=word) as error:
        sampler(ways=ways, shots=shots)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_draws_the_same_tasks():
    here, there = sampler(), EpisodeSampler(numbered().to("cuda"), "train", 0, 5, 2, 3)
    assert torch.equal(here.draw(0, 500).items, there.draw(0, 500).items.cpu())
    assert torch.equal(here.draw(0, 500).query()[0], there.draw(0, 500).query()[0].cpu())


def unequal(counts: tuple[int, ...] = (12, 7, 9, 12, 5, 30), stream: str = "train") -> EpisodeSampler:
    """One-pixel images numbered within their class."""
    images = torch.cat([torch.arange(count, dtype=torch.uint8) for count in counts]).reshape(-1, 1, 1, 1)
    return EpisodeSampler(ImageSet(images, tuple(map(str, counts)), counts), stream, 0, 4, 2, 3)


def test_classes_of_unequal_size_are_drawn_from_in_full():
    counts = (12, 7, 9, 12, 5, 30)
    batch = unequal(counts).draw(0, 3000)
    sizes = torch.tensor(counts)[batch.classes]
    assert bool((batch.items < sizes[..., None]).all())
    for k, count in enumerate(counts):
        drawn = torch.bincount(batch.items[batch.classes == k].flatten(), minlength=count)
        assert len(drawn) == count
        expected = float(drawn.sum()) / count
        assert float(((drawn - expected) ** 2 / expected).sum()) < 3 * count + 20
    assert all(len(set(row)) == 5 for row in batch.items.flatten(0, 1).tolist())


def test_their_images_are_those_that_the_indices_say():
    batch = unequal().draw(0, 50)
    assert torch.equal(batch.support()[0].flatten(1).long(), batch.items[..., :2].flatten(1))
    assert torch.equal(batch.query()[0].flatten(1).long(), batch.items[..., 2:].flatten(1))


def test_classes_that_agree_in_size_are_drawn_from_as_ever():
    """An image's key does not depend on the sizes: what a class of 12 gives is what it gives among equals."""
    mixed, equal = unequal().draw(0, 200), unequal((12,) * 6).draw(0, 200)
    assert torch.equal(mixed.classes, equal.classes)
    of_twelve = torch.tensor((12, 7, 9, 12, 5, 30))[mixed.classes] == 12
    assert 100 < int(of_twelve.sum()) < 700
    assert torch.equal(mixed.items[of_twelve], equal.items[of_twelve])
    stored = torch.arange(72, dtype=torch.uint8).remainder(12).reshape(6, 12, 1, 1, 1)
    five = EpisodeSampler(ImageSet(stored, tuple("abcdef")), "train", 0, 4, 2, 3).draw(0, 200)
    assert torch.equal(five.items, equal.items)


def test_the_smallest_class_bounds_an_episode():
    with pytest.raises(ValueError, match="5 images of class '5' of the train split"):
        EpisodeSampler(unequal().image_set, "train", 0, 4, 3, 3)
