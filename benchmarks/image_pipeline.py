"""What the image pipeline delivers, beside bare JPEG decoding of the same files, and who waits.

    python benchmarks/image_pipeline.py                  all of it, a few minutes on two cores
    python benchmarks/image_pipeline.py --rounds=3 --images=256

The files: crops and enlargements of scikit-learn's two photographs, saved as JPEGs of mixed sizes
in a temporary folder. Each round runs every pipeline once, and a ratio is formed within the round,
so that what else the machine does weighs on both sides; printed is the median over the rounds, with
the quartiles.

1. Throughput: images a second of training and evaluation batches, each over that of a `tf.data`
   pipeline that reads and decodes whole files, in parallel, and drops the pixels. The last column
   is the same ratio in processor time, which a busy machine disturbs less. "heavy" saves in
   decoding what it spends on resizing, colours and batches. "weak", "none" and evaluation keep a
   square of .875 of the short side, and entropy coding leaves nearly a whole file to be decoded for
   it: compare them with "bare, resized", which resizes that square of the whole image besides.
2. Waits: how long a step of fixed length waits for its batch when none, one or as many batches as
   `tf.data` sees fit are held ready.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tf_largebatch import data
from tf_largebatch.data.augmentation import CENTRAL
from tf_largebatch.data.batches import evaluation_batches, training_batches
from tf_largebatch.data.crops import photographs

# (width, height) and share: like ImageNet's, most at 500x375, and some large ones.
SIZES = {(320, 240): 0.15, (500, 375): 0.65, (640, 480): 0.1, (1024, 768): 0.07, (1600, 1200): 0.03}


def write_files(folder, images, quality):
    """A folder for `image_folder`, with one class for each photograph; returns the bytes' mean."""
    random = np.random.default_rng(0)
    sizes = list(SIZES)
    total = 0
    for number in range(images):
        photograph = number % 2
        width, height = sizes[random.choice(len(sizes), p=list(SIZES.values()))]
        if random.random() < 0.3:
            width, height = height, width
        scale = max(width / 640, height / 427, 1.0) * random.uniform(1.0, 1.2)
        pixels = tf.image.resize(
            photographs()[photograph], (int(427 * scale) + 1, int(640 * scale) + 1), "bicubic"
        )
        y = random.integers(pixels.shape[0] - height + 1)
        x = random.integers(pixels.shape[1] - width + 1)
        pixels = tf.saturate_cast(tf.round(pixels[y : y + height, x : x + width]), tf.uint8)
        jpeg = tf.io.encode_jpeg(pixels, quality=quality).numpy()
        total += len(jpeg)
        for part in ("train", "validation"):
            path = pathlib.Path(folder, part, str(photograph), f"{number:05}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
    return total / images


def bare_decoding(source, batch_size, updates, *, resized=False, **options):
    """Reads and decodes the files, in the order of the source, and drops all pixels but one.

    `resized`: and brings the central square to the source's size before.
    """
    paths = tf.constant(source.records.items)

    def decoded(number):
        file = tf.io.read_file(paths[number % len(paths)])
        image = tf.io.decode_jpeg(file, channels=3, **options)
        if resized:
            height, width = tf.unstack(tf.shape(image)[:2])
            side = tf.cast(CENTRAL * tf.cast(tf.minimum(height, width), tf.float32), tf.int32)
            y, x = (height - side) // 2, (width - side) // 2
            image = tf.image.resize(image[y : y + side, x : x + side], source.input_shape[:2])
        return image[0, 0]  # the shape alone might be known without decoding

    numbers = tf.data.Dataset.range(batch_size * updates)
    pixels = numbers.map(decoded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return pixels.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def cost(batches, batch_size):
    """Seconds an image, on the clock and of all cores' time, after the first two batches."""
    iterator = iter(batches)
    next(iterator), next(iterator)
    wall, cpu, images = time.perf_counter(), time.process_time(), 0
    for _ in iterator:
        images += batch_size
    return (time.perf_counter() - wall) / images, (time.process_time() - cpu) / images


def spread(values):
    """The median and the quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.3f} ({low:.3f} - {high:.3f})"


def throughput(folder, arguments):
    """Prints the rates; returns the median rate of "heavy" in images a second."""
    size = arguments.batch_size
    updates = max(6, 2 * arguments.images // size)
    train = {"global_batch_size": size, "seed": 0, "total_updates": updates}
    sources = {
        name: data.load("image_folder", folder, image_size=arguments.image_size, augmentation=name)
        for name in ("none", "weak", "heavy")
    }
    skipping = data.load(
        "image_folder", folder, image_size=arguments.image_size, skip_bad_records=True
    )
    cached = data.load("image_folder", folder, image_size=arguments.image_size, cache=True)
    for _ in training_batches(cached.train, **train):
        pass  # fills the cache
    files = sources["none"].train
    pipelines = {
        "bare": lambda: bare_decoding(files, size, updates),
        "bare, fancy_upscaling=False": lambda: bare_decoding(
            files, size, updates, fancy_upscaling=False
        ),
        "bare, resized": lambda: bare_decoding(files, size, updates, resized=True),
    }
    for name, splits in sources.items():
        pipelines[name] = lambda splits=splits: training_batches(splits.train, **train)
    pipelines["heavy, cache"] = lambda: training_batches(cached.train, **train)
    pipelines["heavy, skip_bad_records"] = lambda: training_batches(skipping.train, **train)
    pipelines["evaluation"] = lambda: evaluation_batches(sources["none"].test, batch_size=size)
    costs = {name: [] for name in pipelines}
    for _ in range(arguments.rounds):
        for name, make in pipelines.items():
            costs[name].append(cost(make(), size))
    print(f"\n{'pipeline':30}{'images/s':>10}   over bare decoding      in processor time")
    for name, found in costs.items():
        ratios = np.array(costs["bare"]) / np.array(found)  # (rounds, 2)
        rate = 1 / statistics.median(wall for wall, _ in found)
        print(f"{name:30}{rate:10.0f}   {spread(ratios[:, 0])}   {spread(ratios[:, 1])}")
    return 1 / statistics.median(wall for wall, _ in costs["heavy"])


def waits(folder, arguments, rate):
    """Prints how long steps wait for their batches."""
    size, updates = arguments.batch_size, max(12, arguments.images // arguments.batch_size)
    source = data.load("image_folder", folder, image_size=arguments.image_size).train
    step_s = arguments.slack * size / rate  # what the pipeline can keep up with
    print(f"\nA step of {1e3 * step_s:.0f} ms, {size} images, {updates - 2} steps a round")
    print(f"{'prefetch':12}{'mean wait':>12}{'longest':>10}   of a step")
    found = {"0": [], "1": [], "tuned": []}
    for _ in range(arguments.rounds):
        for name, waited in found.items():
            batches = training_batches(
                source,
                global_batch_size=size,
                seed=0,
                total_updates=updates,
                prefetch=tf.data.AUTOTUNE if name == "tuned" else int(name),
            )
            iterator, times = iter(batches), []
            for _ in range(updates):
                start = time.perf_counter()
                next(iterator)
                times.append(time.perf_counter() - start)
                time.sleep(step_s)  # as if a device worked
            waited.append((np.mean(times[2:]) / step_s, np.max(times[2:]) / step_s))
    for name, waited in found.items():
        mean, longest = np.median(waited, axis=0)
        print(f"{name:12}{mean:12.1%}{longest:10.1%}")


def main():
    """Makes the files, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=768, help="files")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEGs")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--batch_size", type=int, default=64, help="images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slack", type=float, default=1.5, help="step, in times of a batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mean = write_files(folder, arguments.images, arguments.quality)
        print(
            f"{arguments.images} JPEGs of {', '.join(f'{w}x{h}' for w, h in SIZES)}, "
            f"{mean / 1e3:.0f} kB on average; TensorFlow {tf.__version__}, "
            f"{len(os.sched_getaffinity(0))} cores, {arguments.rounds} rounds"
        )
        rate = throughput(folder, arguments)
        waits(folder, arguments, rate)


if __name__ == "__main__":
    main()
