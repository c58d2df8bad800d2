"""What the pictures are called, and the invented sites they are said to come from."""

from __future__ import annotations

# Titles by kind of scene; the tags (last tuple) are what keyword search finds besides the title's own words.
TITLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "china": (
        (
            "Summer palace above the lake",
            "Temple roof in Beijing",
            "Старый храм в Китае",
            "Chinese pavilion and trees",
            "Летний дворец, Пекин",
        ),
        ("photo", "temple", "china", "architecture", "храм", "travel"),
    ),
    "flower": (
        (
            "Dahlia in full bloom",
            "Red and yellow flower macro",
            "Цветок георгина крупно",
            "Petals, close-up",
            "Garden dahlia after rain",
        ),
        ("photo", "flower", "macro", "цветок", "nature"),
    ),
    "hills": (
        (
            "Misty hills at dawn",
            "Fir trees on a mountain slope",
            "Горы на закате",
            "Evening valley",
            "Layers of blue hills",
        ),
        ("landscape", "mountains", "hills", "пейзаж", "drawing"),
    ),
    "town": (
        (
            "City skyline at dusk",
            "Lit windows downtown",
            "Ночной город",
            "Towers in the fog",
            "Old town roofs",
        ),
        ("city", "skyline", "город", "night", "drawing"),
    ),
    "sea": (
        (
            "Sailing boats off the coast",
            "Regatta in light wind",
            "Лодки в море",
            "Harbour morning",
            "Two sails",
        ),
        ("sea", "boats", "море", "sailing", "drawing"),
    ),
    "garden": (
        ("Flower meadow in June", "Cottage garden", "Полевые цветы", "Summer border", "Daisies and poppies"),
        ("flower", "garden", "цветы", "summer", "drawing"),
    ),
    "fruit": (
        ("Still life with apples", "Fruit on a striped cloth", "Натюрморт с фруктами", "Plums and lemons"),
        ("still life", "fruit", "натюрморт", "painting"),
    ),
    "chart": (
        ("Yearly figures, chart", "Survey results infographic", "График по годам", "Market share diagram"),
        ("chart", "diagram", "infographic", "график"),
    ),
    "page": (
        ("Scanned book page", "Typed report, page one", "Страница старой книги", "Field notes scan"),
        ("text", "document", "scan", "книга"),
    ),
    "map": (
        ("Street map with river", "City plan", "Карта города", "Map of the old quarter"),
        ("map", "city", "карта", "plan"),
    ),
    "tiles": (
        ("Geometric tile pattern", "Woven fabric texture", "Узор плитки", "Seamless mosaic"),
        ("pattern", "texture", "узор", "design"),
    ),
    "face": (
        ("Cartoon portrait", "Avatar, smiling", "Портрет рисованный", "Character sketch"),
        ("portrait", "face", "портрет", "avatar"),
    ),
    "rings": (
        (
            "Abstract poster with circles",
            "Suprematist composition",
            "Абстрактная композиция",
            "Discs and bars",
        ),
        ("abstract", "poster", "абстракция", "art"),
    ),
    "ripple": (
        ("Colour waves wallpaper", "Smooth gradient background", "Фон с волнами", "Interference colours"),
        ("wallpaper", "gradient", "фон", "abstract"),
    ),
    "blank": (("Untitled scan", "Пустой лист"), ("blank", "paper")),
}

ENDINGS = (
    "",
    "",
    "",
    " | wallpaper",
    " - photo gallery",
    " (HD)",
    " скачать",
    " — обои на рабочий стол",
    " & prints",
    " #{n}",
)

# Reserved names (RFC 2606, RFC 6761): nobody can own them, and nothing here ever fetches them.
INVENTED = (
    "photos.harbour.example",
    "blog.harbour.example",
    "harbour.example",
    "cdn.nordlight.example",
    "www.nordlight.example",
    "kunst.example",
    "archive.kunst.example",
    "de.wallpapers.example",
    "wallpapers.example",
    "ru.wallpapers.example",
    "news.daily-gazette.example",
    "travel.daily-gazette.example",
    "shop.prints.example",
    "prints.example",
    "forum.botany.example",
    "www.botany.example",
    "maps.citylab.example",
    "stock.pixelbarn.example",
    "img.pixelbarn.example",
    "galerie.example.org",
    "museum.example.net",
    "www.example.com",
    "xn--80aesfpebagmfblc0a.example",
)

# Services that a report by family must recognise. Page addresses only; no picture is ever served from there.
FAMILIES = (
    "https://vk.com/photo-{n}_45{n}",
    "https://m.vk.com/wall-{n}_7",
    "https://vk.com/album{n}_00",
    "https://ok.ru/profile/{n}/album/8",
    "https://www.pinterest.com/pin/{n}77/",
    "https://ru.pinterest.com/pin/{n}12/",
    "https://northern-light.livejournal.com/{n}.html",
    "https://www.flickr.com/photos/harbour/{n}/",
    "https://live.staticflickr.com/{n}/",
    "https://harbour.blogspot.com/2019/{n}.html",
    "https://harbour.tumblr.com/post/{n}",
    "https://www.deviantart.com/art/scene-{n}",
    "https://pikabu.ru/story/{n}",
)
