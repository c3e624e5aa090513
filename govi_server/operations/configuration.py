"""The configuration in force, for operators: without passwords."""

from typing import Any

import msgspec

from govi_server.settings import Config
from govi_server.settings_loader import CONFIGURATION, MODULE, Table, without_passwords


def changed_settings(config: Config) -> dict[str, Any]:
    """Return the settings that differ from their defaults, by dotted key."""
    return dict(_changed(msgspec.to_builtins(config), CONFIGURATION, ""))


def _changed(values: dict[str, Any], table: Table, name: str) -> list[tuple[str, Any]]:
    changed = []
    for key, value in values.items():
        path = f"{name}.{key}" if name else key
        if path == "modules":
            for module, settings in value.items():
                changed += _changed(settings, MODULE, f"{path}.{module}")
        elif key in table.tables:
            changed += _changed(value, table.tables[key], path)
        else:
            setting = table.settings[key]
            default = list(setting.default) if setting.is_array else setting.default
            value = list(value) if setting.is_array else value
            if value != default:
                changed.append((path, _shown(value)))
    return changed


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(element) for element in value]
    return without_passwords(value) if isinstance(value, str) else value
