"""A loss with its parameters, as a spec names it."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.fields import Mistake, Model, Number, mistake, refuse


class Loss(Model):
    """A loss with its parameters, ``{name: symmetric_ce, a: 1.0, b: 0.1}``, or its name alone."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    name: str = Field(description="the name of a loss", examples=["symmetric_ce"])

    @property
    def parameters(self) -> tuple[tuple[str, float], ...]:
        """All parameters of the loss with their values, sorted by name; () for most losses."""
        values = {**DEFINITIONS[self.name].defaults, **(self.__pydantic_extra__ or {})}
        return tuple(sorted(values.items()))

    def __hash__(self) -> int:
        """By value, parameters included."""
        return hash((self.name, frozenset((self.__pydantic_extra__ or {}).items())))

    def covers(self, other: "Loss") -> bool:
        """Whether ``other`` has this name and every parameter written here (for ``exclude``)."""
        written = set((self.__pydantic_extra__ or {}).items())
        return self.name == other.name and written <= set(other.parameters)

    @model_validator(mode="after")
    def _is_defined(self) -> Self:
        """Check the name, the names of the parameters and their ranges."""
        names = tuple(DEFINITIONS)
        if self.name not in DEFINITIONS:
            expected = mistake(f"one of {', '.join(names)}", names, self.name)
            refuse([(("name",), self.name, expected)])
        parameters = DEFINITIONS[self.name].parameters
        allowed = tuple(parameters)
        expected_text = f"no parameter with {self.name}"
        if allowed:
            expected_text = f"one of {', '.join(allowed)}"
        wrong: list[Mistake] = []
        for parameter, value in (self.__pydantic_extra__ or {}).items():
            if parameter not in parameters:
                wrong.append(((parameter,), value, mistake(expected_text, allowed, parameter)))
            elif not parameters[parameter].allows(value):
                wrong.append(((parameter,), value, mistake(parameters[parameter].expected)))
        refuse(wrong)
        return self


def loss_by_name(value: Any) -> Any:
    """Read the name of a loss as the loss with its default parameters."""
    if not isinstance(value, str | dict | Loss):
        raise mistake("the name of a loss, or {name: …} with its parameters")
    return {"name": value} if isinstance(value, str) else value


LossValue = Annotated[Loss, BeforeValidator(loss_by_name)]
