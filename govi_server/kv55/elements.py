"""The names of the elements of a DRIS_55 (docs/protocols.md, section 1.2)."""

TRIP = (
    "OperatingDate",
    "DataOwnerCode",
    "LinePlanningNumber",
    "LinePublicNumber",
    "DestinationName",
    "JourneyNumber",
    "FortifyOrderNumber",
    "TargetArrivalTime",
    "ExpectedArrivalTime",
    "TargetDepartureTime",
    "ExpectedDepartureTime",
    "TripStopStatus",
)
"""The elements of a Trip, in the interface's order, which is that of the fields of departures.board.Trip."""

DOCUMENT = ("SubscriberID", "Version", "DossierName", "SendTimestamp", "License")
"""The elements before Request."""

REQUEST = ("RequestTimestamp", "SequenceNumber")
"""The elements at the start of Request."""
