"""What the packages are given: speech-like sounds, and text."""

from pathlib import Path

import numpy as np

RATE = 16000
FORMANTS = {  # of vowels, in Hz: G. E. Peterson and H. L. Barney (1952), men
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
BANDWIDTHS = (60, 90, 150)
VOICES = ((115, 1.0), (205, 1.17), (155, 1.08), (95, 0.93))  # pitch, and formants beside these


def speech(seconds, voice=0, seed=0):
    """Something like speech at 16 kHz: syllables of vowels and hisses, with pauses, in noise."""
    pitch, size = VOICES[voice % len(VOICES)]
    rng = np.random.default_rng([seed, voice])
    parts, left = [], int(seconds * RATE)
    while left > 0:
        part = np.zeros(int(rng.uniform(0.3, 1.2) * RATE))
        if (parts and rng.random() < 0.75) or not parts:
            vowels = rng.choice(list(FORMANTS), int(rng.integers(3, 9)))
            part = np.concatenate([syllable(v, pitch, size, rng) for v in vowels])
        parts.append(part)
        left -= part.size
    sound = np.concatenate(parts)[: int(seconds * RATE)]
    sound *= 0.3 / np.abs(sound).max()
    return (sound + 0.002 * rng.standard_normal(sound.size)).astype(np.float32)


def syllable(vowel, pitch, size, rng):
    """A hiss, then a vowel, whose pitch falls: pulses through three resonances."""
    hiss = np.diff(rng.standard_normal(int(rng.uniform(0.03, 0.09) * RATE))) * 0.05
    n = int(rng.uniform(0.09, 0.22) * RATE)
    pitches = pitch * rng.uniform(0.9, 1.15) * np.linspace(1.06, 0.92, n)
    phase = np.cumsum(pitches * (1 + 0.01 * rng.standard_normal(n))) / RATE
    pulses = np.diff(np.floor(phase), prepend=0) - pitches / RATE
    time = np.arange(1024) / RATE
    for formant, bandwidth in zip(FORMANTS[str(vowel)], BANDWIDTHS, strict=True):
        ring = np.exp(-np.pi * bandwidth * time) * np.cos(2 * np.pi * formant * size * time)
        pulses = np.convolve(pulses, ring)[:n]
    rise = np.minimum(1, np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.02 * RATE))
    return np.concatenate([hiss, pulses * rise / np.abs(pulses).max()])


def names(count):
    """Names as of domains: two to four words of a book in a row, joined."""
    book = Path(__file__).parents[1] / "data/holmes.txt"
    words = [w for w in book.read_text().lower().split() if w.isascii() and w.isalpha()]
    rng = np.random.default_rng(0)
    sizes, places = rng.integers(2, 5, count), rng.integers(len(words) - 4, size=count)
    return ["".join(words[p : p + n]) for p, n in zip(places, sizes, strict=True)]


def proteins(count):
    """Sequences of 30 to 240 amino acids, as often as in proteins."""
    letters = "ALGVEISKRDTPNQFYMHWC"
    often = [8.3, 9.7, 7.1, 6.9, 6.7, 5.9, 6.6, 5.8, 5.5, 5.5]
    often += [5.3, 4.7, 4.1, 3.9, 3.9, 2.9, 2.4, 2.3, 1.1, 1.4]
    rng, p = np.random.default_rng(0), np.array(often) / np.sum(often)
    return ["".join(rng.choice(list(letters), int(n), p=p)) for n in rng.integers(30, 240, count)]


ARABIC = [
    "ذهب الولد إلى المدرسة في الصباح الباكر",
    "كتب الطالب الدرس على السبورة",
    "اللغة العربية من أجمل اللغات في العالم",
    "يعمل المهندس في شركة كبيرة بالمدينة",
    "قرأت كتابا جديدا عن تاريخ العلوم عند العرب",
    "سافر أخي إلى مصر لدراسة الطب",
    "تشرق الشمس كل يوم من جهة الشرق",
    "اجتمع الوزراء أمس لمناقشة مشكلة المياه",
    "أحب أن أشرب القهوة مع أصدقائي في المساء",
    "علم الإنسان ما لم يعلم",
    "افتتح الرئيس المعرض الدولي للكتاب في القاهرة بحضور عدد كبير من الكتاب والناشرين",
    "إن الصبر مفتاح الفرج، ومن جد وجد، ومن زرع حصد",
]
CHINESE = [
    "然而，他红了20年以后，他竟退出了大家的视线。",
    "银行行长在行李里发现了一行字。",
    "他长得很高，头发也很长。",
    "我们都觉得这首乐曲让人快乐。",
    "音乐会的会计重新计算了重量。",
    "这个教室里的老师正在教学生写字。",
    "朝阳从东方升起，人们朝着海边走去。",
    "他还没有把借的书还给图书馆。",
    "今天的天气真好，爱好运动的人都出来了。",
    "种子种在地里，各种各样的花都开了。",
    "他背着背包，一边走一边背课文。",
    "为了不让大家为难，他为此做了很多准备。",
]
