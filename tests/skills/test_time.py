"""The calendar, at a moment we choose."""

from datetime import UTC, datetime

import pytest

from skills import InvalidArgument, time


class Services:
    def now(self) -> datetime:
        return datetime(2024, 2, 28, 23, 30, 15, 999, tzinfo=UTC)


@pytest.fixture
def calendar() -> time.Time:
    return time.build(Services())


def test_now_and_today_depend_on_the_zone(calendar: time.Time) -> None:
    assert calendar.now() == "2024-02-28T23:30:15+00:00"
    assert calendar.now("Asia/Tokyo") == "2024-02-29T08:30:15+09:00"
    assert calendar.today() == "2024-02-28"
    assert calendar.today("Asia/Tokyo") == "2024-02-29"


def test_dates_know_leap_years(calendar: time.Time) -> None:
    assert calendar.add_days("2024-02-28", 2) == "2024-03-01"
    assert calendar.add_days("2024-03-01", -2) == "2024-02-28"
    assert calendar.days_between("2024-02-28", "2024-03-01") == 2
    assert calendar.days_between("2024-03-01", "2024-02-28") == -2


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../zoneinfo/UTC", "/etc/localtime", "Europe", "a\0b", "x" * 999])
def test_bad_zones(calendar: time.Time, zone: str) -> None:
    with pytest.raises(InvalidArgument) as failure:
        calendar.now(zone)
    assert failure.value.parameter == "zone"


def test_bad_dates(calendar: time.Time) -> None:
    for day, days in (("tomorrow", 1), ("2024-02-30", 1), ("9999-12-31", 1), ("2024-01-01", 10**12)):
        with pytest.raises(InvalidArgument):
            calendar.add_days(day, days)
