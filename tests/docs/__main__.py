"""Write the two generated pages: python -m tests.docs"""

from tests.docs.generated import PAGES

for path, text in PAGES.items():
    path.write_text(text(), "utf-8")
