"""Models in MLflow: saved, logged and loaded as a flavour of their own, without pickle.

The run folder is what is stored; the signature is read off the schema, so it needs no example of the input.
"""

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from attfm.data.schema import Column
from attfm.errors import ConfigError, MissingExtraError
from attfm.estimators import AFMClassifier, AFMRegressor, load
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model as load_run
from attfm.model.run_folder import save_model as save_run

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

FLAVOR_NAME = "attfm"
_FOLDER = "run"  # the run folder, beside MLflow's own files
Saved = AFMClassifier | AFMRegressor | Model


def save_model(
    attfm_model: Saved,
    path: str | Path,
    *,
    conda_env: Any = None,
    code_paths: Sequence[str] | None = None,
    mlflow_model: Any = None,
    signature: "ModelSignature | None" = None,
    input_example: Any = None,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Save a model as a folder of MLflow's, which `load_model` and `mlflow.pyfunc.load_model` read.

    Parameters
    ----------
    attfm_model : AFMClassifier, AFMRegressor or attfm.Model, fitted
    path : str or pathlib.Path, of a folder that does not exist yet, or is empty
    signature : mlflow.models.ModelSignature or None, None: that of `signature_of`
    conda_env, code_paths, mlflow_model, input_example, pip_requirements, extra_pip_requirements, metadata
        As in every flavour of MLflow. What is asked for by default is this version of attfm.

    Raises
    ------
    MissingExtraError : mlflow is not installed
    ConfigError : it is no fitted model of attfm, or can't be written there; an option is of the wrong type
    """
    mlflow = _require_mlflow()
    environment, paths = _part("utils.environment"), _part("utils.model_utils")
    _check_options(path, signature, metadata)
    environment._validate_env_arguments(conda_env, pip_requirements, extra_pip_requirements)
    model = _model_of(attfm_model)
    folder = Path(path).absolute()
    existed = folder.exists()
    try:
        paths._validate_and_prepare_target_save_path(str(folder))
    except OSError as error:
        raise ConfigError(f"Can't write a model to '{path}': {error.strerror}. Give another folder.") from None
    try:
        code = paths._validate_and_copy_code_paths(code_paths, str(folder))
        described = mlflow.models.Model() if mlflow_model is None else mlflow_model
        _part("models.utils")._save_example(described, input_example, str(folder))
        described.signature = signature_of(model) if signature is None else signature
        if metadata is not None:
            described.metadata = dict(metadata)
        save_run(model, folder / _FOLDER)
        mlflow.pyfunc.add_to_model(
            described, loader_module="attfm.mlflow", data=_FOLDER, code=code,
            conda_env=environment._CONDA_ENV_FILE_NAME, python_env=environment._PYTHON_ENV_FILE_NAME,
        )  # fmt: skip
        described.add_flavor(FLAVOR_NAME, attfm_version=version("attfm"), data=_FOLDER, task=model.task.name, code=code)
        described.save(str(folder / "MLmodel"))
        if conda_env is None:
            usual = get_default_pip_requirements() if pip_requirements is None else None
            conda_env, pip, constraints = environment._process_pip_requirements(
                usual, pip_requirements, extra_pip_requirements
            )
        else:
            conda_env, pip, constraints = environment._process_conda_env(conda_env)
        _write_environment(folder, conda_env, pip, constraints)
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def log_model(
    attfm_model: Saved,
    name: str | None = None,
    *,
    registered_model_name: str | None = None,
    signature: "ModelSignature | None" = None,
    input_example: Any = None,
    **options: Any,
) -> Any:
    """Log a model into the current run of MLflow, and return its ModelInfo.

    Parameters
    ----------
    attfm_model : AFMClassifier, AFMRegressor or attfm.Model, fitted
    name : str or None, of the model there
    registered_model_name : str or None, under which it gets a version in the registry
    signature, input_example, options
        As `save_model` and `mlflow.models.Model.log` take them: pip_requirements, metadata, params, tags, step, ...
    """
    mlflow = _require_mlflow()
    return mlflow.models.Model.log(
        artifact_path=None, name=name, flavor=sys.modules[__name__], registered_model_name=registered_model_name,
        attfm_model=attfm_model, signature=signature, input_example=input_example, **options,
    )  # fmt: skip


def load_model(model_uri: str | Path, dst_path: str | Path | None = None) -> AFMClassifier | AFMRegressor:
    """Return the estimator of a saved or logged model; its predictions are bit for bit the same.

    Parameters
    ----------
    model_uri : str or pathlib.Path, a path, or "models:/name/1", "runs:/id/name" and the like
    dst_path : str, pathlib.Path or None, an existing folder to download it to; None: one of MLflow's choice

    Raises
    ------
    RunFolderError : the run folder in it is damaged
    ConfigError : `model_uri` is neither text nor path
    MissingExtraError : mlflow is not installed
    """
    _require_mlflow()
    if not isinstance(model_uri, str | PathLike):
        raise ConfigError(
            f"model_uri is {model_uri!r:.60}: give the path of a saved model, or a text such as 'models:/NAME/1'."
        )
    paths = _part("utils.model_utils")
    download = _part("tracking.artifact_utils")._download_artifact_from_uri
    folder = download(artifact_uri=str(model_uri), output_path=None if dst_path is None else str(dst_path))
    flavor = paths._get_flavor_configuration(model_path=folder, flavor_name=FLAVOR_NAME)
    paths._add_code_from_conf_to_system_path(folder, flavor)
    return load(Path(folder) / flavor["data"])


def signature_of(attfm_model: Saved) -> "ModelSignature":
    """Return the signature of a model: its input columns by their types in training, its scores, and its threshold."""
    _require_mlflow()
    model = _model_of(attfm_model)
    told = _part("types.schema")
    scores = model.task.score_columns(np.zeros((0, model.module.outputs)), 0.5)
    parameters = None
    if len(model.task.classes) == 2:
        parameters = told.ParamSchema([told.ParamSpec("threshold", "double", float(model.threshold))])
    signature: ModelSignature = _part("models").ModelSignature(
        told.Schema([told.ColSpec(_type_of(column), column.name) for column in model.schema.inputs]),
        told.Schema([told.ColSpec(_scalar(array.type) or "string", name) for name, array in scores.items()]),
        parameters,
    )
    return signature


def get_default_pip_requirements() -> list[str]:
    """Return what a saved model needs: this version of attfm."""
    return [f"attfm=={version('attfm')}"]


def get_default_conda_env() -> Any:
    """Return the conda environment that a saved model asks for by default."""
    _require_mlflow()
    return _part("utils.environment")._mlflow_conda_env(additional_pip_deps=get_default_pip_requirements())


class _Scores:
    """A model as pyfunc has it: from a table to a table of scores, as `attfm predict` writes them."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def get_raw_model(self) -> Model:
        """Return the model."""
        return self._model

    # MLflow takes type hints of this method for a schema, and warns of those it doesn't know.
    def predict(self, data, params=None):  # type: ignore[no-untyped-def]
        """Return a pandas DataFrame of scores; params : "threshold", above which the second class is decided."""
        model = self._model
        threshold = model.threshold
        if params and len(model.task.classes) == 2:
            threshold = model.task.threshold_of(params.get("threshold"), default=threshold)
        return pa.concat_tables(model.score_table(model.open(data), threshold=threshold)).to_pandas()


def _load_pyfunc(path: str) -> _Scores:
    """Return what `mlflow.pyfunc.load_model` wraps; path : of the run folder."""
    return _Scores(load_run(path))


def _check_options(path: Any, signature: Any, metadata: Any) -> None:
    """Raise ConfigError where an option is of another type than `save_model` says."""
    if not isinstance(path, str | PathLike):
        raise ConfigError(f"path is {path!r:.60}: give the path of the folder to save the model in.")
    kind = _part("models").ModelSignature
    if signature is not None and not isinstance(signature, kind):
        raise ConfigError(f"signature is {signature!r:.60}: give a mlflow.models.ModelSignature, or leave it out.")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ConfigError(f"metadata is {metadata!r:.60}: give a dict, such as {{'owner': 'risk'}}.")


def _model_of(saved: Any) -> Model:
    if isinstance(saved, Model):
        return saved
    if isinstance(saved, AFMClassifier | AFMRegressor):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(saved)
        return saved.model_
    raise ConfigError(
        f"A {type(saved).__name__} is no model of attfm: give an AFMClassifier, an AFMRegressor or an attfm.Model."
    )


def _type_of(column: Column) -> Any:
    """Return the type of a column in a signature; where MLflow would refuse values that attfm reads, any."""
    told = _part("types.schema")
    stored = column.stored_type
    if types.is_integer(stored) and column.missing > 0:  # pandas has whole numbers with gaps as floats
        return told.AnyType()
    if types.is_list(stored) and (member := _scalar(stored.value_type)) is not None:
        return told.Array(member)
    return _scalar(stored) or told.AnyType()


def _scalar(stored: pa.DataType) -> Any:
    """Return the name of a scalar type in MLflow, or None where it has none."""
    for test, name in (
        (types.is_boolean, "boolean"), (types.is_integer, "long"), (types.is_floating, "double"),
        (types.is_string, "string"), (types.is_large_string, "string"), (types.is_timestamp, "datetime"),
        (types.is_date, "datetime"),
    ):  # fmt: skip
        if test(stored):
            return None if stored == pa.uint64() else _part("types").DataType[name]
    return None


def _write_environment(folder: Path, conda_env: Any, pip: Sequence[str], constraints: Sequence[str] | None) -> None:
    """Write the files that say what the model needs."""
    import yaml

    environment = _part("utils.environment")
    (folder / environment._CONDA_ENV_FILE_NAME).write_text(yaml.safe_dump(conda_env), encoding="utf-8")
    (folder / environment._REQUIREMENTS_FILE_NAME).write_text("\n".join(pip), encoding="utf-8")
    if constraints:
        (folder / environment._CONSTRAINTS_FILE_NAME).write_text("\n".join(constraints), encoding="utf-8")
    environment._PythonEnv.current().to_yaml(str(folder / environment._PYTHON_ENV_FILE_NAME))


def _part(name: str) -> Any:
    """Return a module of mlflow: what flavours use of it has no types, and partly an underscore before its name."""
    return import_module(f"mlflow.{name}")


def _require_mlflow() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlflow warns of its own type hints when it is imported
            import mlflow
            import mlflow.models
            import mlflow.pyfunc
    except ImportError:
        raise MissingExtraError("mlflow is not installed: run 'pip install \"attfm[mlflow]\"'.") from None
    package: ModuleType = mlflow
    return package
