"""From a folder of images to a recognizer, in Python: train, evaluate, export, enrol, identify.

    python examples/recognize.py PHOTOS QUERY [key=value ...]

PHOTOS and QUERY hold one folder a class. Further arguments are overrides, such as train.num_epochs=3.
"""

import sys

import unalike


def main(photos: str, query: str, *overrides: str) -> None:
    # 1. Train. Without a validation set, a fifth of the classes is held out, so that the figure is that of new classes.
    trained = unalike.train(photos, [*overrides, "results_dir=example"])
    print(f"checkpoint {trained.path}, R@1 on unseen classes {trained.figures['val Precision at Rank 1']:.2f}")

    # 2. Measure on other images: query against reference, with intervals in metrics.json.
    measured = unalike.evaluate(
        {"results_dir": "example", "evaluate": {"checkpoint": str(trained.path)},
         "dataset": {"val_dataset": {"reference": photos, "query": query}}},
    )  # fmt: skip
    print(f"R@1 {measured.figures['test Precision at Rank 1']:.2f}, details in {measured.path}")

    # 3. Export: ONNX, written only when its embeddings equal the network's.
    exported = unalike.export({"results_dir": "example", "export": {"checkpoint": str(trained.path)}})

    # 4. Recognize: no torch is needed from here on. New classes are enrolled, not trained.
    recognizer = unalike.Recogniser.load(exported.path)
    recognizer.enrol(photos)
    inference = unalike.infer(
        {"results_dir": "example", "dataset": {"val_dataset": {"reference": photos}},
         "inference": {"onnx_file": str(exported.path), "input_path": query, "topk": 3}},
    )  # fmt: skip
    first = next(line for line in inference.path.read_text(encoding="utf-8").splitlines())
    print(f"first line of result.csv: {first}")
    result = recognizer.identify(first.split(",")[0], k=3)[0]
    print(f"{result.label}, cosine {result.score:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
