"""Settings of the model and of training, checked by pydantic, and the named presets."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from attfm.errors import ConfigError, near_names

PresetName = Literal["nested", "paper", "fwfm", "fm", "linear"]
TaskName = Literal["binary", "multiclass", "regression"]
CalibrationName = Literal["none", "temperature", "sigmoid", "isotonic"]
CalibrationSetting = Literal["auto"] | CalibrationName

# The factors of the formula that each preset fixes (Xiao et al. 2017; Pan et al. 2018; Rendle 2010).
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "nested": {"pairs": True, "attention": True, "scale": "pairs", "pair_gate": True, "pair_bias": True},
        "paper": {"pairs": True, "attention": True, "scale": "one", "pair_gate": False, "pair_bias": False},
        "fwfm": {"pairs": True, "attention": False, "scale": "one", "pair_gate": True, "pair_bias": False},
        "fm": {"pairs": True, "attention": False, "scale": "one", "pair_gate": False, "pair_bias": False},
        "linear": {"pairs": False, "attention": False, "scale": "one", "pair_gate": False, "pair_bias": False},
    }
)
# What "auto" means of classes and of a regression. Dropout, smoothness and ridges of a regression are chosen by
# validation rows where there are some (`attfm.train.inner_choice`).
_AUTO: Mapping[str, tuple[Any, Any]] = MappingProxyType(
    {
        "memory_pairs": (60, 0),
        "weight_dropout": (0.4, 0.0),
        "learning_rate": (0.01, 0.02),
        "embedding_ridge": (30.0, 10.0),
        "linear_ridge": (2.0, 0.7),
        "averaging": (1.0, 4.0),
        "patience": (10, 25),
        "smoothness": (100.0, 1000.0),
        "statistic_smoothness": (300.0, 1000.0),
        "additive_start": ("auto", False),  # of classes it depends on the rows
    }
)
LEARNED_PROJECTION = frozenset({"nested", "paper"})


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "the settings") -> Self:
        """Return checked settings; raise ConfigError with one sentence for each bad one."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(" ".join(_sentences(error.errors(), cls, where))) from None


def _sentences(errors: Iterable[Any], settings: type[BaseModel], where: str) -> list[str]:
    """Return a sentence for each bad setting; one of several types has an error for each of them."""
    found: dict[tuple[str, str], list[str]] = {}
    values: dict[tuple[str, str], object] = {}
    for error in errors:
        if not error["loc"]:  # settings that don't go together
            found[where, ""] = [f"{error['msg'].removeprefix('Value error, ')} in {where}."]
            continue
        section, names = settings, list(error["loc"])
        while len(names) > 1 and isinstance(kind := section.model_fields[names[0]].annotation, type):
            if not issubclass(kind, BaseModel):
                break
            section, names = kind, names[1:]
        path = error["loc"][: len(error["loc"]) - len(names)]
        place = f"section [{'.'.join(path)}] of {where}" if path else where
        if error["type"] == "extra_forbidden":
            found[place, names[0]] = [unknown_setting(names[0], section.model_fields, where=place)]
            continue
        reasons = found.setdefault((place, names[0]), [])
        reason = error["msg"].removeprefix("Value error, ")
        reasons.append(f"{reason[0].lower()}{reason[1:]}")
        values.setdefault((place, names[0]), error["input"])
    return [
        f"Setting '{name}' in {place} is {values[place, name]!r}: {', or '.join(reasons)}."
        if (place, name) in values
        else reasons[0]
        for (place, name), reasons in found.items()
    ]


def unknown_setting(name: str, known: Any, *, where: str) -> str:
    """Return the sentence for a setting that does not exist, with the nearest name that does."""
    near = near_names(name, known)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}."
    return f"Unknown setting '{name}' in {where}: {hint}"


class Reading(_Settings):
    """How the text of a table is read; a schema keeps what was given in training, for every later table.

    Attributes
    ----------
    names : tuple of str or None, column names of text without a header
    separator : str or None, one character between cells; None: by extension and first rows, among , ; tab and |
    encoding : str, of the text
    skip_rows : int, lines to pass over at the top
    comment : str or None, one character; lines that begin with it are passed over
    null_values : tuple of str, cells that mean missing, besides the usual ("", NA, NaN, null, n/a, ...)
    keep : tuple of str, cells that are values, though they usually mean missing, such as "NA" for Namibia
    decimal : str, between the whole and the fraction of a number: "." or ","
    thousands : str or None, one character between the thousands of a number
    signs : bool, whether numbers may have a percent sign (12.5% is 0.125) or a currency sign ($12.5 is 12.5)
    day_first : bool or None, how 01/02/2024 is read: 1 February, or 2 January; None: only ISO 8601 is a date
    layout : "auto", "fields" or "bag"
        Of libsvm/libfm: "fields" gives columns f0, f1, ..., "bag" one column of maps; "auto" looks for fields.
    """

    names: tuple[str, ...] | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    skip_rows: int = Field(0, ge=0)
    comment: str | None = Field(None, min_length=1, max_length=1)
    null_values: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: str | None = Field(None, min_length=1, max_length=1)
    signs: bool = False
    day_first: bool | None = None
    layout: Literal["auto", "fields", "bag"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.thousands is not None and (self.thousands == self.decimal or self.thousands.isalnum()):
            raise ValueError(f"thousands={self.thousands!r} can't be used with decimal={self.decimal!r}")
        return self

    def updated(self, given: "Reading") -> "Reading":
        """Return this reading with what another one was given, in place of its own."""
        return self.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


class DataConfig(_Settings):
    """How columns become features: what the schema can't read off the values."""

    numeric: Literal["quantile", "uniform", "scaled"] = Field(
        "quantile", description="quantile bins, bins of equal width, or one min-max scaled feature"
    )
    max_bins: Literal["auto"] | Annotated[int, Field(ge=2, le=65_535)] = Field(
        "auto", description="most bins of a numeric field; auto: 255, of a regression 1023"
    )
    min_count: int = Field(1, ge=1, description="training rows that a category needs to be a feature of its own")
    columns: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description='settings of single columns, as {"zip": {"kind": "categorical"}}'
    )


class ModelConfig(_Settings):
    """The formula: a preset, and what departs from it."""

    preset: PresetName = "nested"
    dim: int = Field(16, ge=1, description="length of an embedding (k in the paper)")
    attention_dim: int = Field(16, ge=1, description="hidden units of the attention network (t in the paper)")
    pairs: bool = Field(True, description="pair effects at all")
    attention: bool = Field(True, description="attention over the pairs")
    scale: Literal["one", "pairs"] = Field("pairs", description="factor on the attention weights: 1, or their number")
    pair_gate: bool = Field(True, description="a learned factor for each pair, g")
    pair_bias: bool = Field(True, description="a learned attention bias for each pair, c")
    learned_projection: bool = Field(True, description="p is learned; otherwise it is fixed at 1")
    pair_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the pair vectors")
    weight_dropout: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] = Field(
        "auto",
        description="dropout on the attention weights; auto: 0.4, above 100,000 training rows less and less, of a "
        "regression 0 or 0.4 by validation",
    )
    pooled_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the pooled vector")
    embedding_std: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="standard deviation of the first embeddings; auto: their pair part deviates by about .1"
    )
    memory_pairs: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="most field pairs whose value pairs are remembered, 0: none; auto: 60, of a regression 0"
    )
    memory_min_count: int = Field(1, ge=1, description="training rows that a value pair needs to be remembered")
    memory_entries: int = Field(
        5_000_000, ge=1, description="most value pairs that are remembered; of more, those of the fewest rows are not"
    )
    attention_std: float | None = Field(None, ge=0, description="of W and h at the start; none: 1/sqrt(dim) and 0.1")
    projection_std: float | None = Field(
        None,
        ge=0,
        description="of p at the start; none: p starts at 1, where the weights of pairs add up to 1 at their number, "
        "without gates with every other sign turned",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = values.get("preset", "nested")
        if not isinstance(preset, str) or preset not in PRESETS:
            return values
        return {**PRESETS[preset], "learned_projection": preset in LEARNED_PROJECTION, **values}

    def of_preset(self) -> dict[str, Any]:
        """Return the factors of the formula as the preset has them, by name."""
        return {**PRESETS[self.preset], "learned_projection": self.preset in LEARNED_PROJECTION}

    def of_task(self, task: TaskName) -> "ModelConfig":
        """Return these settings with what "auto" means for a task, where it depends on that (docs/defaults.md)."""
        return self.model_copy(update=_usual(self, task))

    def as_preset(self, preset: PresetName) -> "ModelConfig":
        """Return these sizes, dropouts and starts with the factors of another preset."""
        return ModelConfig.parse({**self.model_dump(exclude={*self.of_preset(), "preset"}), "preset": preset})


class TrainConfig(_Settings):
    """How the parameters are found."""

    task: TaskName | Literal["auto"] = "auto"
    epochs: int = Field(200, ge=1, description="most passes over the training rows")
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    optimizer: Literal["adam", "sgd", "adagrad"] = "adam"
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        "auto", description="auto: 0.01, of a regression 0.02"
    )
    falling_rate: bool = Field(
        False, description="the learning rate falls to 0 over the second half of `epochs`, by the rows that are passed"
    )
    embedding_decay: float = Field(0.0, ge=0, description="decoupled weight decay of the embeddings V")
    linear_decay: float = Field(0.0, ge=0, description="decoupled weight decay of the linear weights w")
    embedding_ridge: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="ridge of the embeddings V, in rows; auto: 30, of preset fm and beside an additive start 10, of a "
        "regression 1, 3, 10 or 30 by validation",
    )
    linear_ridge: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="ridge of the linear weights w, in rows; auto: 2, of a regression as embedding_ridge"
    )
    memory_ridge: float = Field(10.0, ge=0, description="ridge of the pair memory's effects, in rows")
    statistic_smoothness: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="penalty on the difference of neighbouring bins of rates, counts and pair memory, in rows; auto: "
        "300, of a regression 1000",
    )
    adam_eps: float = Field(1e-4, gt=0, description="eps of Adam")
    rates: bool = Field(True, description="embeddings of an id's target rate and count, beside its own")
    rate_levels: int = Field(20, ge=0, description="levels above which a field has rates")
    attention_l2: float = Field(0.0, ge=0, description="L2 penalty on W (paper, section 3.3)")
    smoothness: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="penalty on the difference of neighbouring bins, in rows; auto: 100, of a regression 30, "
        "300 or 1000 by validation; on main effects the less the fewer knots there are",
    )
    knots: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="about how many bins of a numeric field are learned, those between say what both say; 0: "
        "all; auto: the root of the training rows, 16 to 255; of a regression that or 255 by validation",
    )
    smoothness_by_field: bool = Field(
        True, description="each field has a smoothness of its own, by what its neighbouring bins differ by"
    )
    additive_start: bool | Literal["auto"] = Field(
        "auto",
        description="of few rows training begins with main effects that are solved, each field as smooth as the rows "
        "tell, where columns are not mostly ids; auto: of classes up to 12,000 rows, of a regression by validation",
    )
    base_rate_start: bool = Field(True, description="start w0 at the base rate (else at 0)")
    split: str | None = Field(
        None, description="column by which rows are held out: time:COLUMN, group:COLUMN; none: by chance"
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="rows held out where none are given")
    averaging: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="epochs over which the kept parameters are averaged, 0: none; auto: 1, of a regression 4"
    )
    early_stopping: bool = True
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="epochs without a better validation loss before training stops; auto: 10, of a regression 25",
    )
    refit: Literal["auto"] | bool = Field(
        "auto",
        description="train one model again on training and validation rows together, for as many epochs as were best; "
        "never on validation rows that were asked for; auto: where that takes two thirds of the time or less",
    )
    warm_start_from: Literal["fm"] | None = Field(None, description="train an FM first, start from its V and w")
    negative_rate: float = Field(
        1.0, gt=0, le=1, description="share of the first class's training rows that are kept; probabilities stay right"
    )
    class_weight: Literal["balanced"] | dict[str, float] | None = None
    n_models: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = Field(
        "auto", description="models cross-fitted on folds of the rows and averaged; auto: 8 on small tables, else 1"
    )
    n_seeds: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = Field(
        "auto",
        description="models of the same rows and as many epochs as were best, each from a seed of its own, averaged; "
        "auto: up to 3 (of a regression 5) where the best epoch is an early one; 1 above 300,000 rows, from disk, or "
        "with n_models given",
    )
    n_bags: int = Field(
        0, ge=0, le=1000, description="refits on bootstrap samples of the training rows, for the spread of explanations"
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="decision threshold of the reported metrics")
    calibrate: CalibrationSetting = Field(
        "none", description="how probabilities are calibrated by the validation rows; auto: temperature where it helps"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where steps are computed; auto: on a GPU where there is one and steps are large enough"
    )
    backend: Literal["auto", "native", "reference"] = Field(
        "auto", description="who computes the steps: compiled kernels, plain torch, or kernels where they can"
    )

    @field_validator("calibrate", mode="before")
    @classmethod
    def _none_is_a_name(cls, value: object) -> object:
        return "none" if value is None else value  # so that --set calibrate=none is what it says

    @field_validator("split", mode="before")
    @classmethod
    def _check_split(cls, split: object) -> object:
        if split is None or (isinstance(split, str) and re.fullmatch(r"(time|group):.+", split, re.DOTALL)):
            return split
        raise ValueError("Give time:COLUMN (past, then future) or group:COLUMN (whole groups on one side)")

    def of_task(self, task: TaskName) -> "TrainConfig":
        """Return these settings with what "auto" means for a task, where it depends on that (docs/defaults.md)."""
        return self.model_copy(update=_usual(self, task))


def _usual(settings: BaseModel, task: TaskName) -> dict[str, Any]:
    """Return the values of those settings that are "auto" and depend on the task."""
    # Other methods than Adam take steps of the gradient's own size, which strong penalties blow up.
    by_adam = getattr(settings, "optimizer", "adam") == "adam"
    place = 1 if task == "regression" and by_adam else 0
    return {name: values[place] for name, values in _AUTO.items() if getattr(settings, name, None) == "auto"}


class Config(_Settings):
    """All settings of a run; the sections of a settings file."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    def of_task(self, task: TaskName) -> "Config":
        """Return these settings with what "auto" means for a task, where it depends on that (docs/defaults.md)."""
        return self.model_copy(update={"model": self.model.of_task(task), "train": self.train.of_task(task)})
