"""Find inputs, name outputs, describe datasets."""

from shivacmb.bids.channels import SCAN_CONTRASTS, ChannelFinder
from shivacmb.bids.describe import check_output_folder, raw_dataset, write_dataset_description
from shivacmb.bids.files import remove_stale, replacing, write_text
from shivacmb.bids.filters import load_filters, parse_labels
from shivacmb.bids.find import find_scans
from shivacmb.bids.group import COUNTS_TABLE, GroupFiles, write_group
from shivacmb.bids.lock import remove_stale_locks, scan_lock
from shivacmb.bids.masks import check_mask_pattern, find_brain_mask, note_shared_mask
from shivacmb.bids.names import (
    clear_outputs,
    leftovers,
    output_path,
    output_paths,
    record_path,
    report_path,
    run_folder,
    run_folders,
    scans_table_paths,
)
from shivacmb.bids.records import (
    ScanRecord,
    file_facts,
    is_finished,
    read_record,
    read_records,
    remove_absence,
    settings_hash,
    write_absence,
    write_record,
)
from shivacmb.bids.renamed import Departed, find_departed, remove_outputs
from shivacmb.bids.scan import Found, PassedOver, Scan
from shivacmb.bids.tables import retract, write_scans_table

__all__ = [
    'COUNTS_TABLE',
    'SCAN_CONTRASTS',
    'ChannelFinder',
    'Departed',
    'Found',
    'GroupFiles',
    'PassedOver',
    'Scan',
    'ScanRecord',
    'check_mask_pattern',
    'check_output_folder',
    'clear_outputs',
    'file_facts',
    'find_brain_mask',
    'find_departed',
    'find_scans',
    'is_finished',
    'leftovers',
    'load_filters',
    'note_shared_mask',
    'output_path',
    'output_paths',
    'parse_labels',
    'raw_dataset',
    'read_record',
    'read_records',
    'record_path',
    'remove_absence',
    'remove_outputs',
    'remove_stale',
    'remove_stale_locks',
    'replacing',
    'report_path',
    'retract',
    'run_folder',
    'run_folders',
    'scan_lock',
    'scans_table_paths',
    'settings_hash',
    'write_absence',
    'write_dataset_description',
    'write_group',
    'write_record',
    'write_scans_table',
    'write_text',
]
