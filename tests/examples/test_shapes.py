from examples.shapes import main


def test_from_training_to_prediction(tmp_path, capsys) -> None:
    few = ("iterations=4", "eval_every=4", "backbone.filters=8", "plots=false", "progress=false", "threads=1")
    assert main(str(tmp_path / "run"), *few) == 1
    assert capsys.readouterr().out.count("a square: circle 0.") == 2
