"""The time and the calendar."""

from datetime import date, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from semantic_kernel.functions import kernel_function

from skills import InvalidArgument, Services

Zone = Annotated[str, "An IANA time zone, such as Europe/Berlin."]


def build(services: Services) -> "Time":
    return Time(services)


class Time:
    def __init__(self, services: Services) -> None:
        self._services = services

    @kernel_function
    def now(self, zone: Zone = "UTC") -> Annotated[str, "Date, time and offset, ISO 8601, to the second."]:
        """Tells the date and the time in a time zone."""
        return self._services.now().astimezone(_zone(zone)).isoformat(timespec="seconds")

    @kernel_function
    def today(self, zone: Zone = "UTC") -> Annotated[str, "A date, YYYY-MM-DD."]:
        """Tells the date in a time zone."""
        return self._services.now().astimezone(_zone(zone)).date().isoformat()

    @kernel_function
    def add_days(
        self,
        day: Annotated[str, "A date, YYYY-MM-DD."],
        days: Annotated[int, "How many days later; negative for earlier."],
    ) -> Annotated[str, "A date, YYYY-MM-DD."]:
        """Tells the date some days after another."""
        try:
            return (_date(day, "day") + timedelta(days=days)).isoformat()
        except OverflowError as error:
            raise InvalidArgument("The date is out of the calendar's range.", parameter="days") from error

    @kernel_function
    def days_between(
        self,
        start: Annotated[str, "A date, YYYY-MM-DD."],
        end: Annotated[str, "A date, YYYY-MM-DD."],
    ) -> Annotated[int, "How many days `end` is after `start`; negative if it is before."]:
        """Counts the days from one date to another."""
        return (_date(end, "end") - _date(start, "start")).days


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # An unknown name; a path out of the zone files; a folder of them.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgument(
            "The time zone is unknown; use an IANA name, such as Europe/Berlin.", parameter="zone"
        ) from error


def _date(text: str, parameter: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument("The date is not of the form YYYY-MM-DD.", parameter=parameter) from error
