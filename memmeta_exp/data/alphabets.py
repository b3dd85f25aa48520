# ruff: noqa: RUF001 - letters that resemble Latin ones are the point
"""The characters of the `glyphs` dataset by split and script.

The list is fixed here, so the classes do not depend on the version of a font renderer. It has the letters that both
DejaVu Sans and DejaVu Sans Bold draw. Excluded are letters that Unicode decomposes (accents, presentation forms), and
the dotted, long, w- and final forms of the Canadian syllabics. Also excluded is every letter that looks like an earlier
one, in its own script (c and C: size is normalised) or in another (Greek Alpha and A). The order of scripts is Latin,
Greek, Cyrillic, Armenian, Lao, Georgian, Hebrew, Tifinagh, N'Ko, Arabic, Canadian. Two letters look alike if their
DejaVu Sans bitmaps, scaled to one size and slightly blurred, correlate above 0.9 at a shift of up to a tenth of the
size; or, if their proportions are similar, when stretched to a square.
"""

ALPHABETS: dict[str, dict[str, str]] = {
    "train": {
        "latin": (
            "ABCDEFGHIKLMNOPQRSTUVWXYZabdefghkmnpqrtyÆØÞßæðĦŊŒœƁƄƆƇƈƊƋƎƏƑƓƔƕƛƜƝƢƣƤ"
            "ƦƧƩƪƫƱƶƷƸƺƻƼƾǁǂǶȜȡȢȤȥȴȵȸȹȺȻȾȿɀɁɂɄɆɇɉɊɐɕɖɘɚɛɜɝɞɠɤɧɪɮɰɱɲɳɷɸɹɻɽɾɿʁʂʃʇʉʍʎʐ"
            "ʑʓʕʚʛʝʞʡʣʤʦʧʨʩʪʫʬʭʮ"
        ),
        "greek": "ͰͲͶΔΞΦΨαβδζκμνξπςτφωϏϗϘϞϟϠϡϢϦϧϨϪϮϺϻ",
        "cyrillic": "ЂЄЉЊЋЏДЖЛЧЩЫЭЮЯцъђћѣѤѦѨѪѬѮѰѸѼѾҊґғҔҘҠҢҤҦҨҪҲҴҶҹҺҼҿӃӅӇӋӍӷӺӿ",
        "canadian": ("ᐅᐊᐫᐬᐭᐮᐳᐸᑨᑩᑪᑯᒅᒆᒈᒍᓀᓂᓄᓇᓓᓕᓗᓚᓭᓯᔐᔑᔓᔕᔦᔨᔪᔭᕂᕃᕄᕆᕈᕊᕋᕍᕓᕕᕗᕙᕡᕤᕦᕴᕵᕷᕹᕿᖁᖃᖊᖋᖌᖍᖏᖑᖓᖕᖖᖠᖢᖤᗡᙯᙰᙱᙳᙵ"),
    },
    "val": {
        "armenian": "ԳԴԵԶԷԸԹԺԻԾԿՀՁՃՅՆՇՉՊՋՎՐՒՔՖըթխձճմնչջռտփֆ",
        "lao": "ກຂຄງຈຊຍດຕຖທນປຜຝພມຣລວສຮຯະາຽແໂໃ",
    },
    "test": {
        "georgian": "ႡႢႣႤႥႧႨႩႪႫႬႮႰႲႳႵႸႼႽႿჁჃჄჅადეზთკლმნპრტუფქღყცჭჯჱჲჳჴჷჸჹჺ",
        # right-to-left letters as escapes: editors reorder them
        "hebrew": ("\u05d0\u05d1\u05d2\u05d3\u05d4\u05d6\u05d8\u05dc\u05de\u05e2\u05e4\u05e5\u05e6\u05e7\u05e8\u05e9"),
        "tifinagh": "ⴰⴱⴲⴳⴻⴼⴽⴾⴿⵂⵃⵄⵆⵇⵈⵋⵌⵐⵒⵓⵕⵗⵘⵚⵛⵜⵞⵢⵣⵤ",
        # right-to-left letters as escapes: editors reorder them
        "nko": (
            "\u07cf\u07d0\u07d1\u07d2\u07d4\u07d5\u07d6\u07d7\u07d8\u07da\u07db\u07dc\u07dd\u07de\u07df\u07e2\u07e4"
        ),
        # right-to-left letters as escapes: editors reorder them
        "arabic": (
            "\u0621\u0628\u0629\u062a\u062c\u062e\u062f\u0630\u0631\u0632\u0633\u0637"
            "\u0639\u063a\u0641\u0642\u0643\u0645\u0646\u0648\u0649"
        ),
    },
}
