"""The words by which an answer is found: that announce one, that say there is none, that are numbers, that are list letters. Data only."""

from __future__ import annotations

ANSWER_WORDS: dict[str, tuple[str, ...]] = {
    "ar": ("الإجابة", "الاجابة", "إجابة", "الجواب", "جواب", "الناتج"),
    "bn": ("উত্তর",),
    "cs": ("odpověď",),
    "da": ("svar", "svaret"),
    "de": ("antwort", "ergebnis", "endergebnis", "gesamtergebnis", "lösung"),
    "el": ("απάντηση",),
    "en": ("answer",),
    "es": ("respuesta", "resultado"),
    "fa": ("پاسخ",),
    "fi": ("vastaus",),
    "fr": ("réponse", "reponse"),
    "gu": ("જવાબ",),
    "he": ("תשובה",),
    "hi": ("उत्तर", "जवाब"),
    "hu": ("válasz",),
    "id": ("jawaban", "jawabannya"),
    "it": ("risposta",),
    "ja": ("答え", "回答", "解答", "正解", "答"),
    "kn": ("ಉತ್ತರ",),
    "ko": ("정답", "답변", "답"),
    "ml": ("ഉത്തരം",),
    "nl": ("antwoord",),
    "pa": ("ਜਵਾਬ", "ਉੱਤਰ"),
    "pl": ("odpowiedź",),
    "pt": ("resposta",),
    "ro": ("răspuns", "răspunsul"),
    "ru": ("ответ",),
    "sw": ("jibu",),
    "ta": ("பதில்", "விடை"),
    "te": ("సమాధానం", "జవాబు"),
    "th": ("คำตอบ", "ตอบ"),
    "tl": ("sagot",),
    "tr": ("cevap", "yanıt"),
    "uk": ("відповідь",),
    "ur": ("جواب",),
    "vi": ("đáp án", "câu trả lời", "đáp số"),
    "yo": ("ìdáhùn", "idahun"),
    "zh": ("答案", "答"),
}
"""Lower-case words that announce an answer. All are looked for whatever the language: models mix them."""

COPULAS = (
    *(
        "is",
        "are",
        "was",
        "equals",
        "ist",
        "lautet",
        "beträgt",
        "es",
        "est",
        "è",
        "é",
        "is",
        "jest",
        "to",
        "este",
        "er",
        "är",
        "on",
    ),
    *("είναι", "равен", "равно", "составляет", "дорівнює", "ni", "adalah", "là", "olan"),
    *(
        "是",
        "为",
        "為",
        "は",
        "が",
        "คือ",
        "เท่ากับ",
        "은",
        "는",
        "হল",
        "হলো",
        "হবে",
        "হচ্ছে",
        "है",
        "होगा",
        "هو",
        "هي",
        "است",
        "ہے",
        "הוא",
        "היא",
    ),
)

DECIMAL_COMMA = frozenset(
    "af az be bg ca cs da de el es et eu fi fr gl hr hu id is it kk lt lv mk nb nl nn no pl pt".split()
    + "ro ru sk sl sq sr sv tr uk vi".split()
)
"""Languages that write 1.234,5 or 1 234,5. The others write 1,234.5."""

SCALES: dict[str, dict[str, int]] = {
    "bn": {"হাজার": 3, "লাখ": 5, "লক্ষ": 5, "কোটি": 7},
    "de": {"tausend": 3, "million": 6, "millionen": 6, "mio": 6, "milliarde": 9, "milliarden": 9},
    "en": {"thousand": 3, "million": 6, "billion": 9, "lakh": 5, "crore": 7},
    "es": {"mil": 3, "millón": 6, "millones": 6},
    "fr": {"mille": 3, "million": 6, "millions": 6, "milliard": 9, "milliards": 9},
    "hi": {"हज़ार": 3, "हजार": 3, "लाख": 5, "करोड़": 7},
    "it": {"mila": 3, "milione": 6, "milioni": 6},
    "ko": {"천": 3, "만": 4, "백만": 6, "억": 8},
    "pt": {"mil": 3, "milhão": 6, "milhões": 6},
    "ru": {"тысяч": 3, "тысячи": 3, "тысяча": 3, "тыс": 3, "миллион": 6, "миллиона": 6, "миллионов": 6, "млн": 6, "млрд": 9},
    "te": {"వేలు": 3, "వేల": 3, "లక్షలు": 5, "లక్షల": 5, "కోట్లు": 7},
    "th": {"พัน": 3, "หมื่น": 4, "แสน": 5, "ล้าน": 6},
    "uk": {"тисяч": 3, "тис": 3, "мільйон": 6, "мільйонів": 6, "млн": 6},
}
"""Words behind a number that multiply it by a power of ten, by language (English ones everywhere but in German and French)."""

CURRENCIES = frozenset(
    "rs inr us usd eur gbp jpy cny rmb aud cad chf kr sek nok dkk zł pln ksh kes tsh tzs rp idr rm s r c a au".split()
    + "nt hk tk bdt".split()
)
"""Letters that may touch a number's left side; any other letter there (x2, CO2, A4) makes it part of a name."""

LETTERS: dict[str, tuple[str, ...]] = {
    "full-width": tuple("ＡＢＣＤＥＦＧＨＩＪ"),
    "arabic": ("أ", "ب", "ج", "د", "هـ"),
    "bengali": ("ক", "খ", "গ", "ঘ", "ঙ"),
    "bengali, transcribed": ("এ", "বি", "সি", "ডি", "ই"),
    "bengali, by position": ("অ", "ব", "ড", "ঢ"),
    "cyrillic": ("А", "Б", "С", "Г"),
    "devanagari": ("क", "ख", "ग", "घ", "ङ"),
    "devanagari, transcribed": ("ए", "बी", "सी", "डी", "ई"),
    "greek": ("Α", "Β", "Γ", "Δ", "Ε"),
    "kana": ("ア", "イ", "ウ", "エ", "オ"),
    "stems": ("甲", "乙", "丙", "丁", "戊"),
    "hebrew": ("א", "ב", "ג", "ד", "ה"),
    "hangul": ("가", "나", "다", "라", "마"),
    "telugu": ("ఎ", "బి", "సి", "డి", "ఇ"),
    "thai": ("ก", "ข", "ค", "ง", "จ"),
}
"""Native list letters in order, accepted directly behind a marker. Not Cyrillic В: it looks like B and is third in А Б В Г."""

CHOICE_WORDS = (
    *(
        "option",
        "choice",
        "alternative",
        "alternativa",
        "opción",
        "opcion",
        "opção",
        "opzione",
        "вариант",
        "variante",
        "chaguo",
        "pilihan",
    ),
    *("选项", "選項", "選択肢", "選択", "보기", "ตัวเลือก", "ข้อ", "विकल्प", "বিকল্প", "الخيار", "seçenek", "optie", "opcja", "گزینه", "ఎంపిక"),
)
"""Words that may stand between "Answer:" and the letter, and whose letter counts where no answer is announced. Endings may follow."""

ARTICLES = "the la el le il lo die der das den de het η το ο a o letra letter lettre lettera buchstabe буква litera harf".split()
"""Words that may stand before a letter: "la réponse est la C"."""

NO_WORD_A = frozenset("ar bn da de el fa fi gu he hi id ja kn ko ml mr nb nl pa ru sv sw ta te th tr uk ur vi zh".split())
"""Languages in which a lone capital A before a word is a list letter, and no word as in English, Spanish or Polish."""

NUMERALS: dict[str, str] = {
    "bn": "শূন্য এক দুই তিন চার পাঁচ ছয় সাত আট নয় দশ এগারো বারো তেরো চৌদ্দ পনেরো ষোলো সতেরো আঠারো উনিশ বিশ ত্রিশ চল্লিশ পঞ্চাশ ষাট সত্তর আশি নব্বই একশ",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn "
    "neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert",
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete dieciocho "
    "diecinueve veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa cien",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf "
    "vingt trente quarante cinquante soixante soixante-dix quatre-vingts quatre-vingt-dix cent",
    "hi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह सोलह सत्रह अठारह उन्नीस बीस तीस चालीस पचास साठ सत्तर अस्सी नब्बे सौ",
    "id": "nol satu dua tiga empat lima enam tujuh delapan sembilan sepuluh sebelas",
    "it": "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette "
    "diciotto diciannove venti trenta quaranta cinquanta sessanta settanta ottanta novanta cento",
    "nl": "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien achttien "
    "negentien twintig dertig veertig vijftig zestig zeventig tachtig negentig honderd",
    "pl": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć jedenaście dwanaście trzynaście czternaście piętnaście "
    "szesnaście siedemnaście osiemnaście dziewiętnaście dwadzieścia trzydzieści czterdzieści pięćdziesiąt sześćdziesiąt "
    "siedemdziesiąt osiemdziesiąt dziewięćdziesiąt sto",
    "pt": "zero um dois três quatro cinco seis sete oito nove dez onze doze treze quatorze quinze dezesseis dezessete dezoito dezenove "
    "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa cem",
    "ru": "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать четырнадцать пятнадцать "
    "шестнадцать семнадцать восемнадцать девятнадцать двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят "
    "девяносто сто",
    "sv": "noll ett två tre fyra fem sex sju åtta nio tio elva tolv tretton fjorton femton sexton sjutton arton nitton tjugo trettio "
    "fyrtio femtio sextio sjuttio åttio nittio hundra",
    "sw": "sifuri moja mbili tatu nne tano sita saba nane tisa kumi",
    "tr": "sıfır bir iki üç dört beş altı yedi sekiz dokuz on",
    "uk": "нуль один два три чотири п'ять шість сім вісім дев'ять десять",
}
"""0, 1, ... 20, 30, ... 100 in words, or the first of them. A number of several words is not read, but known for one."""

REFUSALS: dict[str, str] = {
    "ar": r"لا (?:يمكن|أستطيع|يمكنني) (?:تحديد|حساب|حل|معرفة|الإجابة)|لا توجد معلومات كافية|(?:المعلومات|البيانات) غير كافية",
    "bn": r"(?:নির্ণয়|গণনা|সমাধান|হিসাব) করা (?:সম্ভব নয়|যায় না|যাবে না)|যথেষ্ট তথ্য (?:নেই|দেওয়া হয়নি)",
    "de": r"nicht (?:eindeutig |genau )?(?:lösen|lösbar|gelöst|bestimmen|bestimmt|berechnen|berechnet|beantworten|beantwortet|ermitteln)"
    r"|nicht (?:genug|genügend|ausreichend)\w* (?:informationen|angaben|daten)|(?:informationen|angaben|daten) reichen nicht",
    "en": r"(?:can(?:not|['’]t| not)|unable to|impossible to|not possible to) (?:be )?"
    r"(?:determin|comput|calculat|answer|solve|work(?:ed)? out|infer)"
    r"|(?:not enough|insufficient) (?:information|data)|n(?:o|['’])t (?:give|provide|contain) enough information",
    "es": r"no (?:se |es posible )?(?:pued\w+ )?(?:determinar|calcular|resolver|responder|saber)(?:se|lo)?\b"
    r"|(?:no hay|sin) (?:suficiente|información|datos)|(?:información|datos) insuficientes?",
    "fa": r"اطلاعات کافی|(?:نمیتوان|نمیتوانم|نمی توان)",
    "fr": r"(?:impossible de |ne p(?:eut|eux|ouvons) pas (?:être )?)(?:détermin|calcul|répond|résou|résol|savoir)"
    r"|pas assez d['’](?:informations|éléments)|données (?:sont )?insuffisantes",
    "hi": r"पर्याप्त जानकारी नहीं|जानकारी (?:पर्याप्त नहीं|अपर्याप्त)|(?:निर्धारित|हल|ज्ञात|गणना) नहीं (?:किया|की) जा सक",
    "id": r"tidak (?:dapat|bisa) (?:di|men)(?:tentukan|hitung|ghitung|jawab)|informasi\w* (?:tidak|kurang) (?:cukup|memadai)",
    "it": r"non (?:posso|è possibile|si può|si possono) (?:determinare|calcolare|risolvere|rispondere|sapere)"
    r"|(?:informazioni|dati) (?:sono )?insufficienti",
    "ja": r"(?:求められ|答えられ|計算でき|決定でき|求めることができ|答えることができ)(?:ません|ない)|情報が(?:足り|不足)",
    "ko": r"(?:구할|계산할|알|답할) 수(?:가)? 없|정보가 부족",
    "pt": r"não (?:é possível|posso|consigo|se pode|podemos) (?:determinar|calcular|resolver|responder|saber)"
    r"|(?:informações|dados) insuficientes",
    "ru": r"недостаточно (?:данных|информации|сведений)|(?:невозможно|нельзя|не могу) (?:определить|вычислить|решить|ответить|найти)",
    "sw": r"(?:siwezi|haiwezekani|hatuwezi) (?:kujibu|kukokotoa|kuhesabu|kujua|kubaini)|taarifa hazitoshi",
    "te": r"సరిపడా సమాచారం లేదు|(?:నిర్ణయించ|లెక్కించ|చెప్ప)లే(?:ము|ను)",
    "th": r"ไม่สามารถ(?:หา|คำนวณ|ตอบ|ระบุ|แก้)|ข้อมูลไม่เพียงพอ",
    "tr": r"yeterli bilgi (?:yok|verilmemiş|bulunmamakta)|(?:belirlenemez|hesaplanamaz|çözülemez)",
    "vi": r"không (?:thể (?:xác định|tính|trả lời|giải)|đủ (?:dữ kiện|thông tin))",
    "zh": r"(?:无法|不能|無法)(?:计算|确定|求出|得出|回答|解答|計算|確定)|(?:信息|条件|資訊)不足",
}
"""Patterns that say that a question cannot be answered: numbers in such a sentence are not its answer. English is looked for everywhere."""
