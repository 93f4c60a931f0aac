"""``python -m shivacmb.train.assemble ORDER``: write a bundle apart from the training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from shivacmb.exceptions import ShivaCMBError


def main(order: Path) -> int:
    """Write the bundle that a JSON file describes; what goes wrong is told in a file beside it."""
    from shivacmb.models import write_bundle

    content = json.loads(order.read_text('utf-8'))
    try:
        write_bundle(
            content['output'], content['folds'], content['metadata'],
            openvino=content['openvino'], overwrite=content['overwrite'],
            extra_files=content['extra_files'],
        )  # fmt: skip
    except ShivaCMBError as error:
        problem = {'kind': type(error).__name__, 'message': str(error)}
        order.with_name('problem.json').write_text(json.dumps(problem), encoding='utf-8')
        return error.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
