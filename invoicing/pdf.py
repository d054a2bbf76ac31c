"""The invoice as a PDF, from a typst template. Labels are Chinese and English, so that a machine
without a CJK font still prints a page that can be read."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import typst
from django.conf import settings

from config.formatting import exact_tokens
from usage.periods import day_of

from . import money
from .models import Invoice, InvoiceLine

TEMPLATE = Path(__file__).parent / "templates" / "invoicing" / "invoice.typ"
KINDS = {
    InvoiceLine.Kind.FEE: ("月费", "Monthly fee"),
    InvoiceLine.Kind.PACK: ("加油包", "Pack"),
    InvoiceLine.Kind.CREDIT: ("减免", "Credit"),
    InvoiceLine.Kind.OVERAGE: ("超出用量", "Overage"),
}


def render(*, invoice: Invoice) -> bytes:
    """The bytes of the PDF; the same invoice always gives the same page."""
    fonts = [settings.INVOICE_FONT_DIR] if settings.INVOICE_FONT_DIR else []
    page = typst.compile(
        str(TEMPLATE),
        font_paths=fonts,
        format="pdf",
        sys_inputs={"invoice": json.dumps(content(invoice=invoice), ensure_ascii=False)},
        timestamp=int(invoice.issued_at.timestamp()),
    )
    assert isinstance(page, bytes)
    return page


def content(*, invoice: Invoice) -> dict[str, Any]:
    """What stands on the page, as text: amounts in yuan, tokens as standard tokens."""
    return {
        "number": invoice.number,
        "cycle": f"{invoice.cycle:%Y-%m}",
        "issued": _day(invoice.issued_at),
        "due": _day(invoice.due_at),
        "buyer": {"name": invoice.buyer_name, "tax_number": invoice.buyer_tax_number},
        "seller": {
            "name": invoice.seller_name,
            "tax_number": invoice.seller_tax_number,
            "address": settings.SELLER_ADDRESS,
        },
        "lines": [_line(line) for line in invoice.lines.order_by("position")],
        "net": money.format_yuan(invoice.net_fen),
        "vat": money.format_yuan(invoice.vat_fen),
        "gross": money.format_yuan(invoice.gross_fen),
        "capitals": money.in_chinese_capitals(invoice.gross_fen),
        "prepaid": money.format_yuan(invoice.prepaid_fen) if invoice.prepaid_fen else "",
        "payable": money.format_yuan(max(0, invoice.gross_fen - invoice.prepaid_fen)),
    }


def _line(line: InvoiceLine) -> dict[str, str]:
    kind, kind_en = KINDS[InvoiceLine.Kind(line.kind)]
    return {
        "kind": kind,
        "kind_en": kind_en,
        "name": line.name,
        "name_en": line.name_en,
        "number": line.msisdn,
        "cycle": f"{line.usage_cycle:%Y-%m}",
        "quantity": "" if line.quantity_mt is None else exact_tokens(line.quantity_mt),
        "price": "" if line.fen_per_million is None else money.format_yuan(line.fen_per_million),
        "rate": f"{line.rate_bp // 100}.{line.rate_bp % 100:02d}".rstrip("0").rstrip(".") + "%",
        "net": money.format_yuan(line.net_fen),
        "vat": money.format_yuan(line.vat_fen),
        "gross": money.format_yuan(line.gross_fen),
    }


def _day(instant: datetime) -> str:
    return day_of(instant).isoformat()
