"""Languages of translation models: codes, tokens, and the post-processor that adds them."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from minitx.tokenizer.files import CONFIG, Settings, wrong
from minitx.validation import ArgumentValueError, check_type

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# In the order of their ids, which is the order in which fairseq appends them to each dictionary. MBART and
# MBART50 are the codes of the two multilingual BARTs, M2M100 and WMT21 those of M2M-100 and of its WMT 2021
# successor, NLLB those of NLLB-200 and FLORES-200.
MBART = _codes(
    """
    ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM
    ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN
    """
)
_MBART50_MORE = _codes(
    """
    af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE
    sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
    """
)
MBART50 = (*MBART, *_MBART50_MORE)
M2M100 = _codes(
    """
    af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi
    hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc
    or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
    """
)
WMT21 = _codes(
    """
    en ha is ja cs ru zh de
    """
)
NLLB = _codes(
    """
    ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab
    ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn
    ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl
    cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn
    dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn pes_Arab fij_Latn fin_Latn
    fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn
    heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn
    jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor knc_Arab knc_Latn
    kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kon_Latn kor_Hang kmr_Latn
    lao_Laoo lvs_Latn lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn
    luo_Latn lus_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn mni_Beng
    khk_Cyrl mos_Latn mri_Latn zsm_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
    nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pol_Latn por_Latn prs_Arab pbt_Arab
    quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn
    slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn
    sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi
    taq_Latn taq_Tfng tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab
    ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn
    yue_Hant zho_Hans zho_Hant zul_Latn
    """
)


@dataclass(frozen=True, kw_only=True)
class LanguageRule:
    """How a family marks the language of a text.

    Attributes:
        pattern: regular expression of a language token; its first group is the language code.
        default: source language if no file names one.
        in_front: place the token before the text instead of after </s>.
    """

    pattern: str
    default: str
    in_front: bool


class Languages:
    """The languages of one tokenizer.

    Attributes:
        tokens: language code -> token.
        source: code of the source language; None if not set.
        target: code of the target language; None if not set.
    """

    def __init__(self, rule: LanguageRule, settings: Settings, vocabulary: Backend) -> None:
        self.tokens: dict[str, str] = {}
        self._ids: dict[str, int] = {}
        for index, token in sorted(vocabulary.get_added_tokens_decoder().items()):
            match = re.fullmatch(rule.pattern, token.content)
            if match and token.special:
                self.tokens[match[1]] = token.content
                self._ids[match[1]] = index
        # transformers first put NLLB's token after the text, against the paper (section 6.1.1); the flag
        # keeps that for models that were trained so (huggingface/transformers#22313).
        self._in_front = rule.in_front and not settings.flag("legacy_behaviour", False)
        self._eos = settings.text("eos_token")
        self.source = self._stated(settings, "src_lang")
        self.target = self._stated(settings, "tgt_lang")
        if self.source is None and rule.default in self.tokens:
            self.source = rule.default

    def _stated(self, settings: Settings, key: str) -> str | None:
        code = settings.config.get(key)
        if code is not None and not isinstance(code, str):
            wrong(CONFIG, key, code, "the code of a language, or null")
        return None if code is None else self.check(key, code)

    def check(self, name: str, code: str) -> str:
        """Returns the code of a language of this tokenizer.

        Raises:
            ArgumentValueError: any other; the message lists the languages.
        """
        check_type(name, code, str, "the code of a language")
        if code not in self.tokens:
            raise ArgumentValueError(name, code, f"a language of this tokenizer: {', '.join(self.tokens)}")
        return code

    def index(self, code: str) -> int:
        """Returns the id of a language's token."""
        return self._ids[self.check("language", code)]

    def post_processor(self, backend: Backend, *, as_target: bool) -> PostProcessor:
        """Returns the post-processor of the source or target language: [code] A </s>, or A </s> [code].

        Raises:
            ValueError: that language is not set.
        """
        from tokenizers import processors

        name, code = ("tgt_lang", self.target) if as_target else ("src_lang", self.source)
        if code is None:
            raise ValueError(
                f"A text of this tokenizer needs its language (as_target={as_target}); set tokenizer.{name}, "
                f"or pass {name}= to load_tokenizer: one of {', '.join(self.tokens)}."
            )
        token, eos = self.tokens[code], self._eos
        front, end = ([token], [eos]) if self._in_front else ([], [eos, token])
        return processors.TemplateProcessing(
            single=[*front, "$A", *end],
            pair=[*front, "$A", "$B", *end],
            special_tokens=[(text, backend.token_to_id(text)) for text in (eos, token)],
        )


def require_languages(languages: Languages | None, parameter: str, code: Any) -> Languages:
    """Returns the languages; raises ArgumentValueError for a tokenizer without any.

    Args:
        languages: of the tokenizer.
        parameter, code: the argument that needs them.
    """
    if languages is None:
        raise ArgumentValueError(
            parameter,
            code,
            "left out: this tokenizer has no languages",
            'a Marian checkpoint for several takes the target in each text: ">>deu<< Good morning."',
        )
    return languages


def find_languages(rule: LanguageRule, settings: Settings, vocabulary: Backend) -> Languages | None:
    """Returns the languages of a vocabulary; None without any."""
    languages = Languages(rule, settings, vocabulary)
    return languages if languages.tokens else None


class Translation:
    """The part of a tokenizer that sets the languages of a translation model."""

    _languages: Languages | None

    @property
    def languages(self) -> tuple[str, ...]:
        """The language codes of a translation model; () without any."""
        return () if self._languages is None else tuple(self._languages.tokens)

    @property
    def src_lang(self) -> str | None:
        """The code of the source language ("en_XX"); may be set."""
        return None if self._languages is None else self._languages.source

    @src_lang.setter
    def src_lang(self, code: str) -> None:
        """Sets the source language."""
        languages = require_languages(self._languages, "src_lang", code)
        languages.source = languages.check("src_lang", code)

    @property
    def tgt_lang(self) -> str | None:
        """The code of the target language; may be set."""
        return None if self._languages is None else self._languages.target

    @tgt_lang.setter
    def tgt_lang(self, code: str | None) -> None:
        """Sets the target language; None for no target."""
        languages = require_languages(self._languages, "tgt_lang", code)
        languages.target = None if code is None else languages.check("tgt_lang", code)

    def with_languages(self, *, src_lang: str | None = None, tgt_lang: str | None = None) -> Self:
        """Returns a copy with other languages; None keeps a language.

        Raises:
            ValueError: not languages of this tokenizer.
        """
        other = copy(self)
        other._languages = copy(self._languages)
        if src_lang is not None:
            other.src_lang = src_lang
        if tgt_lang is not None:
            other.tgt_lang = tgt_lang
        return other

    def language_id(self, code: str) -> int:
        """Returns the id of a language's token, the `forced_bos_token_id` of a translation into it.

        Raises:
            ValueError: not a language of this tokenizer.
        """
        return require_languages(self._languages, "language", code).index(code)
