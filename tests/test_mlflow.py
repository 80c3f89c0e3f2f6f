"""The documented callback for MLflow, with the small client `mlflow-skinny` and an SQLite file."""

import pytest

import lotcal_tf
from lotcal_tf.compat import keras

mlflow = pytest.importorskip("mlflow", reason="needs pip install 'lotcal-tf[mlflow]'")
pytest.importorskip("sqlalchemy", reason="MLflow's SQLite store needs sqlalchemy and alembic")


class LogsToMLflow(keras.callbacks.Callback):
    """Logs each level as an MLflow run, nested in that of the whole search."""

    def __init__(self, uri, experiment, **params):
        super().__init__()
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(experiment)
        self.params_to_log = params
        self.level = -1

    def on_train_begin(self, logs=None):
        self.level += 1
        mlflow.start_run(run_name=f"level_{self.level:02d}")
        mlflow.log_params(self.params_to_log | {"level": self.level})

    def on_epoch_end(self, epoch, logs=None):
        mlflow.log_metrics(logs, step=epoch)

    def on_train_end(self, logs=None):
        mlflow.end_run()

    # The number of the level goes on where an interrupted run is continued.
    def state_dict(self):
        return {"level": self.level}

    def load_state_dict(self, state):
        self.level = state["level"]


@pytest.mark.full
def test_every_level_is_logged_also_of_a_run_that_is_continued(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    fields = {"dataset": "digits", "epochs": 2, "batch_size": 200, "lr": 0.01, "plan": "graph"}
    fields |= {"out": tmp_path / "run", "progress": False}
    for levels in (0, 1):
        logging = LogsToMLflow(uri, "digits", lr=0.01)
        run = lotcal_tf.find_tickets("lenet_5", levels=levels, callbacks=[logging], **fields)
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    found = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"level_00", "level_01"}
    for level in (0, 1):
        logged = found[f"level_{level:02d}"]
        assert logged.info.status == "FINISHED"
        assert logged.data.params == {"lr": "0.01", "level": str(level)}
        values = client.get_metric_history(logged.info.run_id, "val_loss")
        expected = [row["val_loss"] for row in run.ticket(level).history]
        assert [value.value for value in sorted(values, key=lambda v: v.step)] == expected
