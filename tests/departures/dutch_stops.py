"""A network as large as the Dutch one, with names as they are in KV7, and what people type to find its stops."""

import random
from collections.abc import Iterator

from govi_server.departures.modes import Mode
from govi_server.departures.places import StopRecord
from govi_server.departures.timing_point import TimingPoint

_TOWNS = """
Amsterdam 122 487 40, Rotterdam 92 437 34, 's-Gravenhage 81 455 30, Utrecht 136 456 24, Eindhoven 161 383 14,
Groningen 234 582 14, Tilburg 133 397 10, Almere 143 487 12, Breda 113 400 10, Nijmegen 187 428 11,
Apeldoorn 194 469 8, Arnhem 190 444 10, Haarlem 104 489 10, Enschede 257 471 8,
Amersfoort 155 463 9, Zaandam 116 495 6,
's-Hertogenbosch 149 411 9, Zwolle 203 503 8, Leiden 94 464 8, Leeuwarden 182 579 8, Zoetermeer 94 452 6,
Maastricht 176 318 8, Dordrecht 105 425 7, Ede 174 450 5, Delft 85 447 6, Alkmaar 112 516 7, Heerlen 196 322 5,
Venlo 209 376 5, Deventer 207 474 5, Hilversum 141 470 5, Bussum 140 477 3, Gouda 108 447 4, Purmerend 125 501 4,
Hoorn 132 517 4, Lelystad 160 501 4, Assen 234 556 4, Emmen 257 533 4, Zeist 145 455 3, Sneek 173 560 3,
Heerenveen 190 553 3, Bergen op Zoom 79 391 4, Roosendaal 91 394 3, Middelburg 32 391 3, Vlissingen 30 385 3,
Goes 51 391 3, Capelle aan den IJssel 99 438 3, Den Helder 113 553 3, Katwijk 88 468 2, Noordwijk 91 473 2,
Schiphol 112 480 3, Hoofddorp 106 480 4, Amstelveen 119 479 4, Sittard 188 334 3, Oss 165 419 3, Helmond 174 387 4,
Veenendaal 165 448 2, Wageningen 174 442 2, Doetinchem 216 442 3, Zutphen 210 461 3, Hengelo 251 476 3,
Almelo 241 485 3, Meppel 209 523 2, Hoogeveen 228 525 2, Coevorden 246 520 1, Drachten 202 570 3, Tiel 157 433 2,
Vught 148 408 2, Baarn 147 469 2, Soest 149 465 2, Driebergen-Rijsenburg 149 451 2, Cothen 150 445 1,
Wijk bij Duurstede 151 443 1, IJsselstein 132 446 2, Nieuwegein 134 450 4, Houten 139 448 3, Maarssen 130 461 2,
Woerden 120 455 2, Weesp 132 480 2, Huizen 144 478 2, Laren 144 473 1, Volendam 132 501 1, Edam 131 502 1
"""
"""Towns with their position in kilometres (RD), and a weight."""

_STATIONS = {
    "Amsterdam": ("Centraal Station", "Station Sloterdijk", "Station Amstel", "Station Zuid", "Muiderpoortstation"),
    "Rotterdam": ("Centraal Station", "Station Alexander", "Zuidplein", "Station Blaak", "Beurs"),
    "'s-Gravenhage": ("Den Haag Centraal", "Den Haag HS", "Station Laan van NOI", "Leyenburg"),
    "Utrecht": ("CS Centrumzijde", "CS Jaarbeurszijde", "Vaartsche Rijn", "Station Overvecht", "Science Park"),
    "Schiphol": ("Schiphol Airport", "Schiphol Noord"),
    "'s-Hertogenbosch": ("Centraal Station", "Station Oost"),
    "Eindhoven": ("Station", "Airport", "Station Strijp-S"),
    "Haarlem": ("Station", "Station Spaarnwoude"),
    "Nijmegen": ("Centraal Station", "Station Dukenburg", "Radboudumc"),
    "Arnhem": ("Centraal Station", "Station Velperpoort"),
    "Leiden": ("Centraal Station", "Station Lammenschans"),
    "Amersfoort": ("Centraal Station", "Station Schothorst"),
    "Almere": ("Station Centrum", "Station Buiten", "Station Poort"),
    "Groningen": ("Hoofdstation", "Station Europapark", "UMCG Noord"),
    "Delft": ("Station", "Station Campus", "TU Aula"),
}
_STREETS = (
    *("Kerkstraat", "Dorpsstraat", "Schoolstraat", "Molenstraat", "Hoofdstraat", "Nieuwstraat", "Stationsstraat"),
    *("Stationsplein", "Marktplein", "Markt", "Raadhuisplein", "Gemeentehuis", "Ziekenhuis", "Winkelcentrum"),
    *("Wilhelminalaan", "Julianalaan", "Beatrixlaan", "Emmalaan", "Prins Bernhardlaan", "Oranjelaan", "Parklaan"),
    *("Burgemeester de Vlugtlaan", "Thorbeckelaan", "Churchilllaan", "Rooseveltlaan", "Kennedylaan", "Europalaan"),
    *("Industrieweg", "Ambachtsweg", "Handelsweg", "Rijksweg", "Provincialeweg", "Utrechtseweg", "Amsterdamseweg"),
    *("Sint Jansplein", "St. Josephkerk", "Sportpark", "Zwembad", "Begraafplaats", "Tuincentrum", "Café De Zwaan"),
    *("Vondelstraat", "Rembrandtlaan", "Vermeerstraat", "Beethovenlaan", "Mozartlaan", "Händelstraat", "Neude"),
    *("Wilgenlaan", "Eikenlaan", "Beukenlaan", "Lindelaan", "Kastanjelaan", "Berkenweg", "Populierenweg", "Essenweg"),
    *("Zuidplein", "Noordplein", "Westplein", "Oostplein", "Burg. Stulemeijerlaan", "Háagse Poort", "Lange Voorhout"),
    *("Weena", "Coolsingel", "Dam", "Leidseplein", "Museumplein", "Vredenburg", "Hofplein", "Grote Marktstraat"),
)
_SYLLABLES = (
    *(
        "ber",
        "hei",
        "wa",
        "zan",
        "vee",
        "don",
        "ei",
        "lin",
        "ker",
        "roo",
        "vo",
        "ha",
        "ree",
        "ot",
        "bui",
        "dee",
        "gro",
    ),
    *("hol", "ka", "lo", "mo", "nij", "oo", "pol", "que", "rij", "sta", "tol", "uil", "vlie", "wou", "ze", "brou"),
)
_SYLLABLE_ENDS = ("g", "de", "ter", "d", "n", "k", "s", "len", "mer", "r", "vel", "zen", "ling", "ner", "ken", "rik")
_STREET_ENDS = (
    *("laan", "weg", "straat", "plein", "hof", "pad", "dreef", "singel", "kade", "dijk", "steeg", "poort", "burg"),
    *("veld", "akker", "gracht", "haven", "brug"),
)
_VILLAGE = (
    ("Nieuw", "Oud", "Hoog", "Laag", "Groot", "Klein", "Noord", "Zuid", "Ooster", "Wester", "Olde", "Sint "),
    (
        "broek",
        "wijk",
        "dorp",
        "veen",
        "woude",
        "horst",
        "beek",
        "dam",
        "zijl",
        "kerk",
        "huizen",
        "rode",
        "meer",
        "loo",
    ),
)


def stop_records(stops: int, seed: int = 1) -> Iterator[StopRecord]:
    """Yield about this many stops: stations with an area, streets with a pole on both sides and no area."""
    draw = random.Random(seed)
    code = 10_000_000

    def record(
        name: str, town: str, x: float, y: float, departures: int, modes: set[Mode], area: str | None
    ) -> StopRecord:
        nonlocal code
        code += draw.randint(1, 90)
        point = TimingPoint(f"{town}, {name}", town, area, round(x), round(y))
        return StopRecord(str(code), point, area and f"{town}, {name}", frozenset(modes), departures)

    towns: dict[str, tuple[float, float, int]] = {}
    for text in _TOWNS.replace("\n", " ").split(","):
        words = text.split()
        east, north, importance = (int(number) for number in words[-3:])
        towns[" ".join(words[:-3])] = east * 1000.0, north * 1000.0, importance
    made = 0
    for number, (town, (x, y, _)) in enumerate(towns.items()):
        for n, name in enumerate(_STATIONS.get(town, ("Station",))):
            busy = max(4000 - 15 * number, 500) // (n + 1)
            for platform in range(8 if n == 0 else 3):
                modes: set[Mode] = {"bus", "tram"} if town in ("Amsterdam", "Rotterdam", "'s-Gravenhage") else {"bus"}
                yield record(name, town, x + 300 * n, y + 20 * platform, busy, modes, f"st{number}x{n}")
                made += 1
    stems = [f"{start}{end}" for start in _SYLLABLES for end in _SYLLABLE_ENDS]
    villages = [f"{front}{end}" for front in (*_VILLAGE[0], *stems[::4]) for end in _VILLAGE[1]]
    for village in villages:
        position = draw.uniform(30_000, 270_000), draw.uniform(320_000, 600_000)
        towns.setdefault(village.capitalize(), (*position, 1))
    streets = [*_STREETS, *(f"{stem}{end}".capitalize() for stem in stems for end in _STREET_ENDS)]
    streets += [f"{draw.choice(stems)}{draw.choice(streets)}".capitalize() for _ in range(stops // 3)]
    names = list(towns)
    weights = [weight for _, _, weight in towns.values()]
    # Each town has the common names once; those are what people confuse.
    for town in names:
        x, y, weight = towns[town]
        for street in _STREETS if weight > 1 else _STREETS[:3]:
            if made >= stops:
                return
            dx, dy = draw.uniform(-2000, 2000), draw.uniform(-2000, 2000)
            for side in (0, 40):
                yield record(street, town, x + dx + side, y + dy, draw.randint(20, 300), {"bus"}, None)
                made += 1
    while made < stops:
        (town,) = draw.choices(names, weights)
        x, y, weight = towns[town]
        street = f"{draw.choice(streets)}{draw.choice(('', '', '', '/' + draw.choice(streets)))}"
        dx, dy = draw.uniform(-4000, 4000), draw.uniform(-4000, 4000)
        for side in (0, 40):
            yield record(street, town, x + dx + side, y + dy, draw.randint(1, 200), {"bus"}, None)
            made += 1


QUERIES: dict[str, tuple[str, str]] = {
    "utrecht cs": ("Utrecht", "CS Centrumzijde"),
    "utr centraal": ("Utrecht", "CS Centrumzijde"),
    "utrecht centraal": ("Utrecht", "CS Centrumzijde"),
    "Utrecht Centraal Station": ("Utrecht", "CS Centrumzijde"),
    "centraal utrecht": ("Utrecht", "CS Centrumzijde"),
    "cs utrecht": ("Utrecht", "CS Centrumzijde"),
    "utrecht": ("Utrecht", "CS Centrumzijde"),
    "utrehct centraal": ("Utrecht", "CS Centrumzijde"),
    "utrecht c.s.": ("Utrecht", "CS Centrumzijde"),
    "utrecht jaarbeurs": ("Utrecht", "CS Jaarbeurszijde"),
    "Den Haag HS": ("'s-Gravenhage", "Den Haag HS"),
    "den haag hollands spoor": ("'s-Gravenhage", "Den Haag HS"),
    "hollands spoor": ("'s-Gravenhage", "Den Haag HS"),
    "hs den haag": ("'s-Gravenhage", "Den Haag HS"),
    "denhaag hs": ("'s-Gravenhage", "Den Haag HS"),
    "s-gravenhage": ("'s-Gravenhage", "Den Haag Centraal"),
    "'s-Gravenhage centraal": ("'s-Gravenhage", "Den Haag Centraal"),
    "sgravenhage": ("'s-Gravenhage", "Den Haag Centraal"),
    "den haag": ("'s-Gravenhage", "Den Haag Centraal"),
    "den haag cs": ("'s-Gravenhage", "Den Haag Centraal"),
    "den haag centraal": ("'s-Gravenhage", "Den Haag Centraal"),
    "haagse poort den haag": ("'s-Gravenhage", "Háagse Poort"),
    "'s hertogenbosch": ("'s-Hertogenbosch", "Centraal Station"),
    "s hertogenbosch": ("'s-Hertogenbosch", "Centraal Station"),
    "shertogenbosch": ("'s-Hertogenbosch", "Centraal Station"),
    "hertogenbosch": ("'s-Hertogenbosch", "Centraal Station"),
    "den bosch": ("'s-Hertogenbosch", "Centraal Station"),
    "denbosch station": ("'s-Hertogenbosch", "Centraal Station"),
    "den bosch oost": ("'s-Hertogenbosch", "Station Oost"),
    "Kerkstraat Bussum": ("Bussum", "Kerkstraat"),
    "bussum kerkstraat": ("Bussum", "Kerkstraat"),
    "kerkstr bussum": ("Bussum", "Kerkstraat"),
    "kerkstrat busum": ("Bussum", "Kerkstraat"),
    "bushalte kerkstraat bussum": ("Bussum", "Kerkstraat"),
    "amsterdam centraal": ("Amsterdam", "Centraal Station"),
    "a'dam cs": ("Amsterdam", "Centraal Station"),
    "adam cs": ("Amsterdam", "Centraal Station"),
    "amsterdm centraal": ("Amsterdam", "Centraal Station"),
    "amstredam centrral": ("Amsterdam", "Centraal Station"),
    "sloterdijk": ("Amsterdam", "Station Sloterdijk"),
    "amsterdam slotterdijk": ("Amsterdam", "Station Sloterdijk"),
    "amsterdam zuid": ("Amsterdam", "Station Zuid"),
    "muiderpoort": ("Amsterdam", "Muiderpoortstation"),
    "leidseplein amsterdam": ("Amsterdam", "Leidseplein"),
    "rotterdam centraal": ("Rotterdam", "Centraal Station"),
    "roterdam centraal": ("Rotterdam", "Centraal Station"),
    "R'dam alexander": ("Rotterdam", "Station Alexander"),
    "rotterdam zuidplein": ("Rotterdam", "Zuidplein"),
    "schiphol": ("Schiphol", "Schiphol Airport"),
    "schiphol luchthaven": ("Schiphol", "Schiphol Airport"),
    "eindhoven airport": ("Eindhoven", "Airport"),
    "vliegveld eindhoven": ("Eindhoven", "Airport"),
    "eidnhoven station": ("Eindhoven", "Station"),
    "strijp s": ("Eindhoven", "Station Strijp-S"),
    "groningen hoofdstation": ("Groningen", "Hoofdstation"),
    "gronigen": ("Groningen", "Hoofdstation"),
    "ljouwert": ("Leeuwarden", "Station"),
    "nijmegen radboud": ("Nijmegen", "Radboudumc"),
    "handelstraat zeist": ("Zeist", "Händelstraat"),
    "cafe de zwaan gouda": ("Gouda", "Café De Zwaan"),
    "sint josephkerk delft": ("Delft", "St. Josephkerk"),
    "st jansplein breda": ("Breda", "Sint Jansplein"),
    "stations plein ede": ("Ede", "Stationsplein"),
    "bergen op zoom": ("Bergen op Zoom", "Station"),
    "capelle a/d ijssel station": ("Capelle aan den IJssel", "Station"),
    "prins bernhardln apeldoorn": ("Apeldoorn", "Prins Bernhardlaan"),
    "ede": ("Ede", "Station"),
    "almere centrum": ("Almere", "Station Centrum"),
    "capelle aan de ijssel": ("Capelle aan den IJssel", "Station"),
    "capelle ad ijssel": ("Capelle aan den IJssel", "Station"),
    "station capelle": ("Capelle aan den IJssel", "Station"),
    "umc nijmegen": ("Nijmegen", "Radboudumc"),
    "radboud ziekenhuis": ("Nijmegen", "Radboudumc"),
    "umcg": ("Groningen", "UMCG Noord"),
    "st jansplein delft": ("Delft", "Sint Jansplein"),
    "halte kerkstraat bussum": ("Bussum", "Kerkstraat"),
    "kerkstraat 12, 1404 ab bussum": ("Bussum", "Kerkstraat"),
    "metro beurs rotterdam": ("Rotterdam", "Beurs"),
    "metrostation beurs": ("Rotterdam", "Beurs"),
    "metro zuidplein": ("Rotterdam", "Zuidplein"),
    "ams cs": ("Amsterdam", "Centraal Station"),
    "asd centraal": ("Amsterdam", "Centraal Station"),
    "rdam cs": ("Rotterdam", "Centraal Station"),
    "haag centraal": ("'s-Gravenhage", "Den Haag Centraal"),
    "laan v noi": ("'s-Gravenhage", "Station Laan van NOI"),
    "noi": ("'s-Gravenhage", "Station Laan van NOI"),
    "denbosch centraal": ("'s-Hertogenbosch", "Centraal Station"),
    "oost station den bosch": ("'s-Hertogenbosch", "Station Oost"),
    "utrecht vaartse rijn": ("Utrecht", "Vaartsche Rijn"),
    "utrecht overvegt": ("Utrecht", "Station Overvecht"),
    "zuid station amsterdam": ("Amsterdam", "Station Zuid"),
    "muiderpoort station": ("Amsterdam", "Muiderpoortstation"),
    "leidse plein amsterdam": ("Amsterdam", "Leidseplein"),
    "almere cs": ("Almere", "Station Centrum"),
    "bergenopzoom": ("Bergen op Zoom", "Station"),
    "wijk bij duurstede": ("Wijk bij Duurstede", "Station"),
    "driebergen": ("Driebergen-Rijsenburg", "Station"),
    "katwijk a/d zee": ("Katwijk", "Station"),
    "schipol": ("Schiphol", "Schiphol Airport"),
    "schiphol plaza": ("Schiphol", "Schiphol Airport"),
    "groningen hs": ("Groningen", "Hoofdstation"),
    "groningen station": ("Groningen", "Hoofdstation"),
    "groningen cs": ("Groningen", "Hoofdstation"),
    "leiden lammenschans": ("Leiden", "Station Lammenschans"),
    "tu delft": ("Delft", "TU Aula"),
    "hilversum centraal": ("Hilversum", "Station"),
    "busstation heerlen": ("Heerlen", "Station"),
    "burg de vlugtlaan amsterdam": ("Amsterdam", "Burgemeester de Vlugtlaan"),
    "pr bernhardlaan apeldoorn": ("Apeldoorn", "Prins Bernhardlaan"),
    "josephkerk delft": ("Delft", "St. Josephkerk"),
    "delft markt": ("Delft", "Markt"),
    "beethoven laan leiden": ("Leiden", "Beethovenlaan"),
    "rembrandlaan gouda": ("Gouda", "Rembrandtlaan"),
    "stationn zwolle": ("Zwolle", "Station"),
    "ysselstein": ("IJsselstein", "Station"),
}
"""The town and the name of the place that must come first, by what people type."""
